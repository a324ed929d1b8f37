"""What hiding personal data costs: one server, a tenant that hides it beside one that does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import peers
import report
from conversations import conversation
from load import wrk
from prediction import small_network
from sentences import sentences
from serve import Model, Served, command, openmaas, scratch

from tenancy import quantile

HERE = Path(__file__).parent
HIDE, OFF = "hide", "off"
CHARACTERS = 4400  # about a thousand tokens of English
PACE = 10  # requests a second, where latency is measured
STREAMS, TOKENS, CONNECTIONS = 32, 64, 8
ECHO_PACE = 50  # tokens a second of each echoed stream: together more than engines here reach
PEOPLE = (
    ("Anna Schmidt", "anna.schmidt@example.org", "+49 30 901820"),
    ("Paulo Ribeiro", "paulo@example.pt", "+351 21 798 4200"),
    ("Mary Jones", "mary.jones@example.co.uk", "+44 20 7946 0123"),
)


def main() -> None:
    parser = peers.arguments(__doc__ or "")
    parser.add_argument("--seconds", type=int, default=10, help="of each run")
    parser.add_argument("--skip", action="append", default=[], choices=["chat", "embed", "echo"])
    chosen = parser.parse_args()
    cache = peers.cache_folder(chosen.cache)
    file = cache / "small.onnx"
    if not file.exists():
        small_network(file)
    models = [
        Model("echo", file, runtime="echo"),
        Model("echo-paced", file, {"tokens_per_second": str(ECHO_PACE)}, "echo"),
        Model("smollm2-135m"),
        Model("minilm-l6-v2"),
    ]
    rounds = report.Rounds()
    print(report.machine())
    with scratch() as folder, openmaas(cache, models) as served:
        keys = {action: key(served, action) for action in (HIDE, OFF)}
        for number in range(chosen.rounds):
            for action in (HIDE, OFF) if number % 2 else (OFF, HIDE):
                run = _Run(served, keys[action], action, rounds, Path(folder), number)
                run.latency(chosen.seconds)
                if "embed" not in chosen.skip:
                    run.embeddings(chosen.seconds)
                if "echo" not in chosen.skip:
                    run.streams("echo-paced")
                if "chat" not in chosen.skip:
                    run.streams("smollm2-135m")
            print(f"round {number + 1}", flush=True)
    show(rounds)


def key(served: Served, action: str) -> str:
    """A key of a tenant with that policy."""
    if action not in command(served.data, "tenants", "list").split():
        command(served.data, "tenants", "create", action)
    command(served.data, "privacy", "policy", action, "--redaction", action)
    return command(served.data, "keys", "create", "bench", "--tenant", action).split()[-1]


class _Run:
    def __init__(
        self,
        served: Served,
        key: str,
        name: str,
        rounds: report.Rounds,
        folder: Path,
        number: int,
    ) -> None:
        self._url, self._key, self._name = served.url, key, name
        self._rounds, self._folder, self._number = rounds, folder, number

    def latency(self, seconds: int) -> None:
        """Of whole answers to a thousand tokens, at a steady pace."""
        bodies = [chat("echo", text, 16) for text in letters(32, CHARACTERS)]
        file = self._written("letters", bodies)
        url = f"{self._url}/v1/chat/completions"
        script = [sys.executable, str(HERE / "paced.py"), url, str(file), str(PACE)]
        done = subprocess.run(
            [*script, str(2 * seconds), self._key, "20"], check=True, capture_output=True, text=True
        )
        paced = json.loads(done.stdout)
        if paced["failed"]:
            raise RuntimeError(f"{self._name}: {paced['failed']} requests failed")
        self._rounds.add(self._name, "p50 ms", quantile(paced["ms"], 0.5))
        self._rounds.add(self._name, "p99 ms", quantile(paced["ms"], 0.99))

    def embeddings(self, seconds: int) -> None:
        """Sixteen sentences a request."""
        found = sentences(320)
        bodies = []
        for at in range(0, len(found), 16):
            inputs = [*found[at : at + 15], f"Write to {PEOPLE[at % 3][1]} before Friday."]
            bodies.append({"model": "minilm-l6-v2", "input": inputs})
        file = self._written("sentences", bodies)
        url = f"{self._url}/v1/embeddings"
        wrk(url, file, connections=CONNECTIONS, seconds=1, key=self._key)
        load = wrk(url, file, connections=CONNECTIONS, seconds=seconds, key=self._key)
        self._add("embeddings", load.per_second * 16)

    def streams(self, model: str) -> None:
        """All at once, each of ``TOKENS`` tokens."""
        bodies = []
        for at in range(STREAMS):
            name, email, phone = PEOPLE[at % len(PEOPLE)]
            messages = conversation(self._number * STREAMS + at)
            told = {"role": "user", "content": f"I am {name}, {email}, {phone}, no. {at}."}
            body = chat(model, "", TOKENS) | {"messages": [told, *messages]}
            more = {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
            bodies.append(body | more)
        file = self._written("chats", bodies)
        script = [sys.executable, str(HERE / "streams.py"), f"{self._url}/v1/chat/completions"]
        done = subprocess.run(
            [*script, str(file), str(STREAMS), self._key], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        self._add(model, json.loads(done.stdout)["per_second"])

    def _add(self, case: str, per_second: float) -> None:
        if not per_second:
            raise RuntimeError(f"{self._name}: nothing came of {case}: is the machine busy?")
        self._rounds.add(self._name, case, per_second)

    def _written(self, name: str, bodies: list[dict[str, Any]]) -> Path:
        file = self._folder / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, bodies)) + "\n")
        return file


def chat(model: str, text: str, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0}


def letters(count: int, characters: int) -> list[str]:
    """Real prose with people in it."""
    prose = sentences(600)
    made = []
    for number in range(count):
        name, email, phone = PEOPLE[number % len(PEOPLE)]
        text, at = f"Dear {name}, I write to {email}.", number * 7
        while len(text) < characters:
            text += " " + prose[at % len(prose)]
            at += 1
        made.append(f"{text} Call me: {phone}.")
    return made


def show(rounds: report.Rounds) -> None:
    lines = []
    for case, bar in (("p50 ms", None), ("p99 ms", 10.0)):
        more = (rounds.median(HIDE, case) or 0.0) - (rounds.median(OFF, case) or 0.0)
        told = f"{more:.1f}"
        if bar is not None:
            told += f" ({'meets' if more <= bar else 'MISSES'} ≤ {bar:g})"
        lines.append([case, rounds.spread(HIDE, case), rounds.spread(OFF, case), told])
    report.table(
        f"answers to {CHARACTERS} characters, about 1,000 tokens, {PACE} requests/s, echo",
        ["", HIDE, OFF, "added"],
        lines,
    )
    lines = []
    for case, what in (
        ("smollm2-135m", f"smollm2-135m, {STREAMS} streams, tokens/s"),
        ("echo-paced", f"echo at {ECHO_PACE} tokens/s each, {STREAMS} streams, tokens/s"),
        ("embeddings", f"minilm-l6-v2, {CONNECTIONS} connections, sentences/s"),
    ):
        if rounds.median(OFF, case) is None:
            continue
        compared = report.ratio(rounds.ratio(case, HIDE, OFF), 0.9)
        lines.append([what, rounds.spread(HIDE, case), rounds.spread(OFF, case), compared])
    report.table("throughput", ["", HIDE, OFF, "hide ÷ off"], lines)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
