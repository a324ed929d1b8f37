"""What is done about personal data in one request of a client, whatever it asks of models."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from openmaas.errors import PersonalData
from openmaas.inference import (
    Chat,
    Complete,
    Loglikelihood,
    Message,
    ModelInfo,
    Request,
    Tag,
    Translate,
)
from openmaas.redaction.entity import Entity
from openmaas.redaction.policy import RedactionPolicy
from openmaas.redaction.vault import Vault
from openmaas.serving.redacting.answers import Answers
from openmaas.serving.redacting.places import Places
from openmaas.serving.redacting.requests import SHARED, Asked, rewritten
from openmaas.serving.redacting.searching import INLINE, Search, Searching
from openmaas.serving.redacting.treated import Treated

NAMED = 5  # places that a refusal names

Entities = Sequence[Entity]
AskTagger = Callable[[Sequence[str]], Awaitable[list[list[Entity]]]]
"""What a token-classification model finds in each text."""


class Told(Protocol):
    """Counts kinds that were found, for the metrics."""

    def __call__(self, kinds: Mapping[str, int], direction: str, action: str) -> None: ...


class Hidden(NamedTuple):
    """A text as models may see it."""

    text: str
    given: str
    places: Places


class Redaction:
    """Goes with a ticket. A thing has one placeholder in all of a request's texts, but where each
    text is answered by itself.

    Args:
        shared: of the request or of its conversation.
        together: texts of all places share it: those of a conversation, and an explanation's, which
            asks about the same row again and again.
        tagger: ``None``: no model is asked.
    """

    def __init__(
        self,
        search: Search,
        searching: Searching,
        shared: Vault,
        told: Told,
        *,
        together: bool = False,
        tagger: AskTagger | None = None,
    ) -> None:
        self.found: Counter[str] = Counter()  # kinds in the request
        self.made_up: Counter[str] = Counter()  # kinds in the answer that were not in the request
        # Its texts were treated where they came in, as its task cuts them in pieces, in which an
        # entity may be cut too: what it asks of models passes as it is, answers too.
        self.whole = False
        self._noted: dict[str, Hidden] = {}  # by the text that models see
        self._search = search
        self._searching = searching
        self._shared = shared
        self._told = told
        self._together = together
        self._tagger = tagger

    @property
    def policy(self) -> RedactionPolicy:
        return self._search.policy

    @property
    def hides(self) -> bool:
        return self.policy.action == "hide"

    # --- on the way to a model ------------------------------------------------------------------

    async def request(self, request: Request, info: ModelInfo) -> tuple[Request, Answers | None]:
        """The request as a model may see it, and what restores its answer.

        Raises:
            PersonalData: the policy refuses what was found.
            InvalidRequest: it cannot be searched, or what was found cannot be hidden.
        """
        if self.whole:
            return request, None
        vaults: dict[int, Vault] = {}
        places: list[Places] = []

        def hide(text: str, found: Entities, place: int) -> str:
            vault = self._vault(vaults, place)
            hidden = vault.hide(text, found)
            if isinstance(request, Tag):
                places.append(Places(hidden, vault, found))
            return hidden

        request = await self._rewritten(request, hide)
        schema = isinstance(request, Chat | Complete) and request.sampling.json_schema is not None
        return request, Answers(
            lambda place, *, json=False, again=False: self._treated(
                self._vault(vaults, place), json=json, again=again
            ),
            json=schema,
            places=places,
            labels=frozenset(info.labels),
            aside=self._search.slow,
        )

    async def texts(self, given: Sequence[str], param: str) -> list[str]:
        """A task's texts before it cuts them, as models may see them. From now on what it asks of
        models passes as it is, and its answers are to go through ``answered``.

        Raises:
            PersonalData, InvalidRequest: as ``request``.
        """
        request = await self._rewritten(Translate(inputs=[*given]), self._note, param)
        self.whole = True
        return request.inputs

    async def conversation(self, messages: Sequence[Message]) -> list[Message]:
        """As ``texts``."""
        asked = Loglikelihood(messages=[*messages], answers=[])
        request = await self._rewritten(asked, self._note)
        self.whole = True
        return request.messages

    def known(self, hidden: str) -> Hidden:
        """What a text was that models saw, or wrote."""
        found = self._noted.get(hidden)
        if found is None:
            places = Places(hidden, self._shared)
            found = Hidden(hidden, self._shared.restore(hidden), places)
        return found

    def _note(self, text: str, found: Entities, place: int) -> str:
        hidden = self._shared.hide(text, found)
        if hidden != text:
            self._noted[hidden] = Hidden(hidden, text, Places(hidden, self._shared, found))
        return hidden

    async def _rewritten(
        self, request: Asked, hide: Callable[[str, Entities, int], str], called: str | None = None
    ) -> Asked:
        """
        Args:
            called: what the caller calls the texts; ``None``: as the request does.
        """
        params: dict[str, str] = {}  # by text

        def collect(text: str, param: str, place: int = SHARED) -> str:
            params.setdefault(text, param if called is None else param.replace("input", called, 1))
            return text

        rewritten(request, collect)
        entities = await self._entities(params)
        if self.hides:
            for text in entities:
                self._shared.avoid(text)
        counted: Counter[str] = Counter()

        def change(text: str, param: str, place: int = SHARED) -> str:
            found = entities[text]
            counted.update(one.kind for one in found)
            return hide(text, found, place) if self.hides else text

        request = rewritten(request, change)
        if counted:
            self.found.update(counted)
            self._told(counted, "request", self.policy.action)
        return request

    async def _entities(self, params: Mapping[str, str]) -> dict[str, list[Entity]]:
        """What is in each text.

        Raises:
            PersonalData: something, and the policy is to refuse.
        """
        texts = list(params)
        more = await self._tagger(texts) if self._tagger is not None and texts else []
        found = await self._searching.find(self._search, texts, more)
        entities = dict(zip(texts, found, strict=True))
        if self.policy.action == "block" and any(found):
            self._told(Counter(one.kind for each in found for one in each), "request", "block")
            where = [
                f"{', '.join(sorted({one.kind for one in each}))} in {params[text]}"
                for text, each in entities.items()
                if each
            ]
            more_places = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
            first = next(params[text] for text, each in entities.items() if each)
            raise PersonalData(
                "this key's redaction policy refuses personal data: there is "
                f"{'; '.join(where[:NAMED])}{more_places}",
                param=first,
            )
        return entities

    def _vault(self, vaults: dict[int, Vault], place: int) -> Vault:
        if place == SHARED or self._together:
            return self._shared
        vault = vaults.get(place)
        if vault is None:
            vault = vaults[place] = Vault()
        return vault

    # --- on the way from a model ----------------------------------------------------------------

    async def answered(self, text: str) -> str:
        """A task's answer, or a part of it that stands by itself, as its caller may see it.

        Raises:
            PersonalData: a model made some up, and the policy refuses them.
        """
        outgoing = self.outgoing()
        if len(text) > INLINE or self._search.slow:
            return await asyncio.to_thread(lambda: outgoing.feed(text) + outgoing.end())
        return outgoing.feed(text) + outgoing.end()

    def outgoing(self) -> Treated:
        """What treats a task's answer that comes in pieces."""
        return self._treated(self._shared)

    def _treated(self, vault: Vault, *, json: bool = False, again: bool = False) -> Treated:
        search = self._search
        tell = _nothing if again else self._made_up
        return Treated(vault, search.finder, self.policy.action, tell, json=json)

    def _made_up(self, kinds: Counter[str]) -> None:
        self.made_up.update(kinds)
        self._told(kinds, "answer", self.policy.action)


def _nothing(kinds: Counter[str]) -> None:
    """They were counted before."""
