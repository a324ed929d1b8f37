"""Our errors in each wire format, in one table."""

from __future__ import annotations

import math

import msgspec

from openmaas import errors
from openmaas.errors import OpenMaaSError
from openmaas.gateway.endpoint import Wire
from openmaas.serving.redacting.redaction import Redaction
from openmaas.tenancy.meters import Rate

# class → (HTTP status, OpenAI's error type); a class that is not here takes its base's row
TABLE: dict[type[OpenMaaSError], tuple[int, str]] = {
    OpenMaaSError: (500, "server_error"),
    errors.InvalidRequest: (400, "invalid_request_error"),
    errors.PayloadTooLarge: (413, "invalid_request_error"),
    errors.UnsupportedMedia: (415, "invalid_request_error"),
    errors.Unauthenticated: (401, "invalid_request_error"),
    errors.PermissionDenied: (403, "invalid_request_error"),
    errors.NotFound: (404, "invalid_request_error"),
    errors.MethodNotAllowed: (405, "invalid_request_error"),
    errors.Conflict: (409, "invalid_request_error"),
    errors.RateLimited: (429, "rate_limit_exceeded"),
    errors.QuotaExhausted: (429, "insufficient_quota"),
    errors.Overloaded: (503, "overloaded"),
    errors.InsufficientMemory: (507, "server_error"),
    errors.DeadlineExceeded: (503, "server_error"),
    errors.WorkerFailed: (503, "server_error"),
    errors.TrainingFailed: (400, "invalid_request_error"),
    errors.ArtifactRefused: (400, "invalid_request_error"),
    errors.ConversionFailed: (400, "invalid_request_error"),
    errors.StorageFull: (507, "server_error"),
    errors.StorageUnavailable: (503, "server_error"),
}


def row(error: OpenMaaSError) -> tuple[int, str]:
    """Status and OpenAI type of an error."""
    return next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)


def body(error: OpenMaaSError, wire: Wire) -> bytes:
    """The error as the JSON that clients of this wire format read."""
    if wire != "openai":
        return msgspec.json.encode({"error": error.message})
    return msgspec.json.encode(
        {
            "error": {
                "message": error.message,
                "type": row(error)[1],
                "param": error.param,
                "code": error.code,
            }
        }
    )


def rate_headers(requests: Rate | None, tokens: Rate | None) -> list[tuple[bytes, bytes]]:
    """OpenAI's ``x-ratelimit-…``, of the limits that there are."""
    found = []
    for name, rate in ((b"requests", requests), (b"tokens", tokens)):
        if rate is not None:
            found += [
                (b"x-ratelimit-limit-" + name, b"%d" % rate.limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % rate.remaining),
                (b"x-ratelimit-reset-" + name, _duration(rate.reset)),
            ]
    return found


def redacted_headers(redaction: Redaction, *, whole: bool) -> list[tuple[bytes, bytes]]:
    """Which kinds of personal data were found, and how often: in the request, and in the answer.

    Args:
        whole: the answer is known, not a stream that begins.
    """
    found = []
    for name, kinds in (
        (b"x-openmaas-redacted", redaction.found),
        (b"x-openmaas-redacted-answer", redaction.made_up if whole else None),
    ):
        if kinds:
            told = ", ".join(f"{kind}={count}" for kind, count in sorted(kinds.items()))
            found.append((name, told.encode()))
    return found


def _duration(seconds: float) -> bytes:
    """As Go writes them: 1s, 6m0s."""
    whole = math.ceil(seconds)
    return b"%dm%ds" % divmod(whole, 60) if whole >= 60 else b"%ds" % whole


def headers(error: OpenMaaSError) -> list[tuple[bytes, bytes]]:
    """``Retry-After`` (whole seconds) and OpenAI's finer ``retry-after-ms``."""
    found = []
    if error.retry_after is not None:
        found.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
        found.append((b"retry-after-ms", str(max(1, round(error.retry_after * 1000))).encode()))
    if isinstance(error, errors.QuotaExhausted | errors.InsufficientMemory):
        found.append((b"x-should-retry", b"false"))
    if isinstance(error, errors.Unauthenticated):
        found.append((b"www-authenticate", b"Bearer"))
    return found
