"""Where a text that still grows can be looked at for good: the same places however it is cut.

What is *plain* passes at once, word by word: words that no entity of ours has, lower-case ones
above all. A *run* is a stretch of other words, with small words between them; it is given out when
a plain word, an empty line or, in scripts without capitals, the end of a clause closes it. So what
is held back is an unfinished word or run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from openmaas.redaction.detectors.not_names import NEVER
from openmaas.redaction.own import Expressions, Words

LONGEST_RUN = 256
"""Characters of a run after which its beginning is given out though it goes on."""

LONGEST_WORD = 4096
"""Characters of a word after which it is taken for two, and of a private key's lines."""

LONGEST_LOOK = 4 * LONGEST_WORD
"""Characters of which the next segment surely is known, however the text goes on."""

_MARGIN = 64  # characters at the end of a run that was cut which are looked at again

_JOINED = "\u0e00-\u0eff\u3001-\u303f\u3040-\u30ff\u3400-\u9fff\uff00-\uffef"
_STOPS = "，。；！？、…\u3002\uff0c\uff1b\uff01\uff1f\uff1a"
_TOKEN = re.compile(
    rf"\s{{1,{LONGEST_WORD}}}|[{_STOPS}]|[^\s{_STOPS}{_JOINED}]{{1,{LONGEST_WORD}}}"
    rf"|(?:(?![{_STOPS}])[{_JOINED}]){{1,{LONGEST_WORD}}}"
)
_LONG = 25  # letters: a word of so many may be something else
_PLAIN = re.compile(r"['\"(\[*_]*[a-zß-öø-ÿā-ž\ufffc'’-]{1,24}[.,;:!?)\]'\"*_…]*")
_PLAIN_SIGNS = re.compile(r"[^\w@:/<+#\\]+|\ufffc+\W*")
# Letters of scripts with capitals: Latin, Greek, Cyrillic, Armenian, Georgian.
_CASED = re.compile("[A-Za-z\u00c0-\u058f\u10a0-\u10ff\u1e00-\u1fff]")
_CLAUSE_END = re.compile(r"[.,;:!?،؛؟۔।][)\]'\"»]*$")
_SENTENCE_END = re.compile(r"[.!?؟。！？][)\]'\"»]*$")
_KEY_BEGIN, _KEY_END = "-----BEGIN", re.compile(r"-----END [A-Z0-9 ]{0,60}-----")

# Lower-case words within names, addresses, dates and numbers.
_WITHIN = frozenset(
    "de del della delle dei di da do dos das du des la le les los las el al y e i o van von vom zu"
    " zum zur der den dem ter ten te het 't bin ibn ben bint abu of en op an am in"
    " im bei ext x st nd rd th d d' l' l’ d’ c/o c/ n° nº nr no bis sur s/n po esq jr sr".split()
)
# And those that one begins with.
_BEGINNING = frozenset(
    "rue avenue av av. boulevard bd allée allee place chemin impasse quai route cours passage"
    " via viale piazza corso vicolo largo strada stretto borgo contrada"
    " calle avenida plaza paseo camino carrera ronda rambla urbanización pasaje"
    " ul ul. ulica ulicy al al. aleja alei pl pl. plac placu os os. osiedle"
    " rua travessa estrada rodovia praça alameda largo"
    " januari februari maart april mei juni juli augustus september oktober november december"
    " janvier février mars avril mai juin juillet août septembre octobre novembre décembre"
    " enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"
    " gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre"
    " stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada"
    " grudnia janeiro fevereiro março maio junho julho setembro outubro novembro dezembro".split()
)
# Capitalised, they only begin sentences.
_NEVER = NEVER - frozenset("am an auf im in unter zum zur le la los las el".split())
_EDGES = ".,;:!?()[]'\"*_"


class Segment(NamedTuple):
    """Attributes:
    end: of what is given out, of the text that was asked about.
    seen: of what may be looked at to judge it.
    is_run: whether anything can be in it.
    is_cut: whether the run goes on behind it, so that an entity may reach over ``end``.
    """

    end: int
    seen: int
    is_run: bool
    is_cut: bool = False


class Segmenter:
    """Says where the next segment of a text ends.

    Args:
        words, expressions: a tenant's own. Where there are expressions, any word may be in a run,
            which then ends with its sentence.
    """

    def __init__(self, words: Words, expressions: Expressions) -> None:
        self._vocabulary = words.vocabulary
        self._all = bool(expressions.patterns)

    def _begins(self, token: str) -> bool:
        """Whether a run may begin with it: not with what only begins sentences."""
        return not self._passes(token) and (self._all or token.strip(_EDGES).lower() not in _NEVER)

    def next(self, text: str, *, final: bool) -> Segment | None:
        """The segment that ``text`` begins with; ``None``: not before more of it is known.

        Args:
            final: no more text follows.
        """
        plain = 0
        for start, token, is_whole in _tokens(text, final):
            if not self._begins(token) and (is_whole or token[0].isspace()):
                plain = start + len(token)
                continue
            if plain:
                break
            return self._run(text, final) if is_whole else None
        return Segment(plain, plain, False) if plain else None

    def _run(self, text: str, final: bool) -> Segment | None:
        live = 0  # where the last word of the run ends
        edges = []
        is_key = False
        for start, token, is_whole in _tokens(text, final):
            if not is_whole:
                return None
            end = start + len(token)
            if token[0].isspace():
                if token.count("\n") > 1 and not is_key:
                    return Segment(live, start, True)
                continue
            if is_key:
                live = end
                if _KEY_END.search(text, 0, end) or end > LONGEST_WORD:
                    return Segment(end, end, True)
                continue
            if live and self._passes(token) and token.strip(_EDGES).lower() not in _WITHIN:
                return Segment(live, end, True)
            if not self._passes(token) or not live:
                live = end
            is_key = token.endswith(_KEY_BEGIN)
            if not is_key and self._closes(token):
                return Segment(live, end, True)
            edges.append(start)
            if end > LONGEST_RUN and not is_key:
                within = [edge for edge in edges if 0 < edge <= end - _MARGIN]
                return Segment(within[-1], end, True, True) if within else Segment(end, end, True)
        return Segment(len(text), len(text), True) if final else None

    def _passes(self, token: str) -> bool:
        if token[0].isspace():
            return True
        if self._all:
            return False
        if token.isascii() and token.isalpha() and token.islower() and not self._vocabulary:
            return token not in _BEGINNING and len(token) < _LONG
        if _PLAIN_SIGNS.fullmatch(token):
            return True
        word = token.strip(_EDGES).casefold()
        return (
            _PLAIN.fullmatch(token) is not None
            and word not in _BEGINNING
            and not (self._vocabulary and not self._vocabulary.isdisjoint(Words.split(token)))
        )

    def _closes(self, token: str) -> bool:
        if self._all:
            return _SENTENCE_END.search(token) is not None or token in _STOPS
        if token in _STOPS:
            return True
        return not _CASED.search(token) and _CLAUSE_END.search(token) is not None


def _tokens(text: str, final: bool) -> Iterator[tuple[int, str, bool]]:
    """Place, token, and whether more text leaves it as it is."""
    for found in _TOKEN.finditer(text):
        token = found[0]
        yield (
            found.start(),
            token,
            final or found.end() < len(text) or token in _STOPS or len(token) == LONGEST_WORD,
        )
