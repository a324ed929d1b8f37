"""A multipart form with one file, which is handed on as it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from openmaas.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia
from openmaas.gateway.exchange import Exchange

FIELDS = 16
FIELD_BYTES = 1024


class Form:
    """
    Args:
        file: the name of the part that is a file; there is exactly one.
        names: of all parts that there may be.

    Attributes:
        fields: texts by name, complete once ``pieces`` are.
        filename: of the file, likewise.

    Raises:
        UnsupportedMedia: the body is said to be something else, or compressed.
    """

    def __init__(self, exchange: Exchange, file: str, names: Sequence[str]) -> None:
        self.fields: dict[str, str] = {}
        self.filename = ""
        media, options = parse_options_header(exchange.header(b"content-type"))
        boundary = options.get(b"boundary")
        if media != b"multipart/form-data" or not boundary:
            raise UnsupportedMedia("the body is a form: multipart/form-data, with its boundary")
        if b"content-encoding" in exchange.headers:
            raise UnsupportedMedia("a form is sent as it is, not compressed")
        self._exchange = exchange
        self._file = file
        self._names = names
        self._found = False  # the file
        self._whole = False
        self._header = self._value = b""
        self._disposition = b""
        self._name = ""
        self._text = bytearray()
        self._content: list[bytes] = []
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._part_ends,
                    "on_end": self._ends,
                },
            )
        except FormParserError:
            raise InvalidRequest("the form's boundary is none") from None

    async def pieces(self, size: int, limit: int) -> AsyncIterator[bytes]:
        """The file, in pieces of about ``size`` bytes.

        Args:
            limit: bytes of the whole form.

        Raises:
            InvalidRequest: the form is malformed, or a part is missing, unknown or there twice.
            PayloadTooLarge: beyond a limit.
        """
        async for part in self._exchange.slices(size, limit):
            try:
                self._parser.write(part)
            except FormParserError:
                raise InvalidRequest("the form is malformed") from None
            if self._content:
                content, self._content = b"".join(self._content), []
                yield content
        if not self._whole:
            raise InvalidRequest("the form ends before its end")
        if not self._found:
            raise InvalidRequest(f"the form has no {self._file}", param=self._file)

    # --- what the parser tells -----------------------------------------------------------------

    def _part_begins(self) -> None:
        self._disposition = self._header = self._value = b""
        self._text = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = _text(options.get(b"name", b""))
        if self._name not in self._names:
            raise InvalidRequest(
                f"the form has an unknown field {self._name[:64]!r}; there are: "
                f"{', '.join(self._names)}",
                param=self._name[:64],
            )
        if self._name in self.fields or (self._name == self._file and self._found):
            raise InvalidRequest(f"the form has {self._name} twice", param=self._name)
        if self._name == self._file:
            self._found = True
            self.filename = _text(options.get(b"filename", b""))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._file:
            self._content.append(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > FIELD_BYTES:
            raise PayloadTooLarge(
                f"a field of the form has {FIELD_BYTES} bytes at the most", param=self._name
            )

    def _part_ends(self) -> None:
        if self._name != self._file:
            self.fields[self._name] = _text(bytes(self._text))

    def _ends(self) -> None:
        self._whole = True


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the form's names and fields are UTF-8") from None
