"""Who searches a text for personal data: the event loop where that is soon done, else a child."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence

import msgspec

from openmaas.config import told_children
from openmaas.errors import InvalidRequest, Overloaded
from openmaas.placement.local import PASSED_ON
from openmaas.redaction.entity import Entity
from openmaas.redaction.finder import Finder, finder
from openmaas.redaction.policy import RedactionPolicy
from openmaas.serving.redacting.searcher import LENGTH, Found, Question

INLINE = 8192  # characters of a request that the event loop searches: about as many µs
CHILDREN = 2  # at one time
WAITING = 64  # requests that wait for one
SECONDS = 30.0  # for one answer
KNOWN, MOST_WORDS = 1024, 1_000_000  # policies that are remembered, and words of their lists
MEMORY = 2 << 30  # bytes of address space of a child, Python included
_ANSWER = 64 << 20  # bytes
_COMMAND = [
    *(sys.executable, "-m", "openmaas.placement.sandbox", "--limits"),
    msgspec.json.encode({"address_space": MEMORY}).decode(),
    *("--module", "openmaas.serving.redacting.searcher"),
]


class Search:
    """How texts are searched by one policy."""

    def __init__(self, policy: RedactionPolicy, find: Finder) -> None:
        self.policy = policy
        self.finder = find

    @property
    def words(self) -> int:
        return sum(map(len, self.policy.words.values()))

    @property
    def slow(self) -> bool:
        """A tenant's own expressions may take a while, during which the event loop must go on."""
        return bool(self.policy.patterns)


class Searching:
    """Searches by policy, and the children that do the long ones."""

    def __init__(self) -> None:
        self._seen: dict[int, Search] = {}  # by the identity of a policy, which a search holds
        self._words = 0  # of the lists of all of them
        self._places = asyncio.Semaphore(CHILDREN)
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._waiting = 0

    async def by(self, policy: RedactionPolicy) -> Search:
        """The search of a policy, which is made ready in a thread where it is new.

        Raises:
            InvalidRequest: an expression of it is a danger.
        """
        found = self._seen.get(id(policy))
        if found is None:
            found = Search(policy, await asyncio.to_thread(finder, policy))
            self._words += found.words
            if len(self._seen) >= KNOWN or self._words > MOST_WORDS:
                self._seen.clear()
                self._words = found.words
            self._seen[id(policy)] = found
        return found

    async def find(
        self, search: Search, texts: Sequence[str], more: Sequence[Sequence[Entity]] = ()
    ) -> list[list[Entity]]:
        """What is found in each text.

        Args:
            more: entities that are known already, of each text.

        Raises:
            Overloaded: too many long texts are searched.
            InvalidRequest: one could not be searched in time.
        """
        known = more or [()] * len(texts)
        if sum(map(len, texts)) <= INLINE and not search.slow:
            return [search.finder.find(text, one) for text, one in zip(texts, known, strict=True)]
        if self._waiting >= WAITING:
            raise Overloaded("too many long texts are searched for personal data", retry_after=1)
        self._waiting += 1
        try:
            async with self._places:
                return await self._asked(search, texts, known)
        finally:
            self._waiting -= 1

    async def stop(self) -> None:
        for child in list(self._children):
            await child.end()
        self._children.clear()
        self._idle.clear()

    async def _asked(
        self, search: Search, texts: Sequence[str], more: Sequence[Sequence[Entity]]
    ) -> list[list[Entity]]:
        child = self._idle.pop() if self._idle else None
        if child is None or child.ended:
            if child is not None:
                self._children.discard(child)
            child = await _Child.start()
            self._children.add(child)
        done = False
        try:
            async with asyncio.timeout(SECONDS):
                found = await child.ask(search, texts, more)
            done = True
            return found
        except InvalidRequest:
            done = True
            raise
        except (TimeoutError, asyncio.IncompleteReadError, OSError, msgspec.DecodeError):
            raise InvalidRequest(
                f"the request's text could not be searched for personal data within {SECONDS:g} "
                "seconds; send less of it, or have the patterns of the policy made simpler"
            ) from None
        finally:
            if done:
                self._idle.append(child)
            else:  # also of a caller that went away: the child's answer is nobody's
                self._children.discard(child)
                await child.end()


class _Child:
    """One process; it is told a policy when that is another than before."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._policy: RedactionPolicy | None = None

    @classmethod
    async def start(cls) -> _Child:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= told_children()
        return cls(
            await asyncio.create_subprocess_exec(
                *_COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # what fails there may quote a text
                env=environment | told_children(),
                start_new_session=True,
            )
        )

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def ask(
        self, search: Search, texts: Sequence[str], more: Sequence[Sequence[Entity]]
    ) -> list[list[Entity]]:
        policy = None if search.policy is self._policy else search.policy
        question = Question([*texts], [[*one] for one in more], policy)
        raw = await asyncio.to_thread(msgspec.msgpack.encode, question)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(LENGTH.pack(len(raw)) + raw)
        await stdin.drain()
        (size,) = LENGTH.unpack(await stdout.readexactly(LENGTH.size))
        if size > _ANSWER:
            raise OSError("an answer out of bounds")
        found = msgspec.msgpack.decode(await stdout.readexactly(size), type=Found)
        self._policy = search.policy if found.error is None else None
        if found.error is not None:
            raise InvalidRequest(found.error, param="redaction")
        if len(found.entities) != len(texts):
            raise OSError("an answer to something else")
        return found.entities

    async def end(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
