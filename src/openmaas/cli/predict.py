"""``openmaas predict``."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openmaas.cli import remote
from openmaas.cli.remote import Url
from openmaas.cli.screen import say, table
from openmaas.errors import InvalidRequest

if TYPE_CHECKING:
    from openmaas.client import Client, Output

EXAMPLES = """[bold]Examples[/]

openmaas predict digits examples/digits.json

openmaas predict digits rows.csv --json

generate-rows | openmaas predict digits -

FILE holds JSON (rows; {"instances": rows}; {"inputs": {name: rows}}; or a whole Open Inference
Protocol V2 body), CSV with or without a line of titles, or an array saved by NumPy (.npy)."""

SHOWN = 12  # numbers of a row that fit a line


def register(app: typer.Typer, panel: str) -> None:
    app.command(epilog=EXAMPLES, rich_help_panel=panel)(predict)


def predict(
    model: Annotated[str, typer.Argument(help="As `openmaas status` names it.")],
    file: Annotated[str, typer.Argument(help="JSON, CSV or NPY; - is standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="The outputs as JSON, whole.")] = False,
    version: Annotated[int | None, typer.Option(help="[dim]\\[the one served][/]")] = None,
    url: Url = remote.DEFAULT_URL,
) -> None:
    """Runs an ordinary network on the rows of a file."""
    given = read(file)
    with remote.client(url) as client:
        outputs = _ask(client, model, given, version)
    if as_json:
        say(json.dumps({name: one.rows() for name, one in outputs.items()}))
    else:
        _show(outputs)


def _ask(client: Client, model: str, given: Any, version: int | None) -> dict[str, Output]:
    try:
        if isinstance(given, dict) and isinstance(given.get("inputs"), list):
            return client.infer(model, given, version=version)
        if isinstance(given, dict):
            given = given["instances"] if "instances" in given else given.get("inputs", given)
        return client.predict(model, _columns(given), version=version)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def _columns(rows: Any) -> Any:
    """Rows that are objects of a value per input, as one list per input."""
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        return rows
    if any(not isinstance(row, dict) or row.keys() != rows[0].keys() for row in rows):
        raise ValueError("the instances do not all have the same inputs")
    return {name: [row[name] for row in rows] for name in rows[0]}


def read(file: str) -> Any:
    """What a file holds: nested rows, or a dict as the help says.

    Raises:
        InvalidRequest: it cannot be read.
    """
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        if raw.startswith(b"\x93NUMPY"):
            return _array(raw)
        text = raw.decode()
        if text.lstrip()[:1] in ("{", "["):
            return json.loads(text)
        return _table(text)
    except OSError as error:
        raise InvalidRequest(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidRequest(
            f"{file} is neither JSON nor CSV of numbers nor NPY: {error}"
        ) from None


def _array(raw: bytes) -> Any:
    import numpy as np

    return np.load(io.BytesIO(raw), allow_pickle=False).tolist()


def _table(text: str) -> list[list[float]]:
    lines = [line for line in csv.reader(io.StringIO(text)) if line]
    if not lines:
        raise ValueError("it is empty")
    try:
        first = [[float(cell) for cell in lines[0]]]
    except ValueError:
        first = []  # the line of titles
    return first + [[float(cell) for cell in line] for line in lines[1:]]


def _show(outputs: dict[str, Output]) -> None:
    """A line a row; for scores of several classes, the likeliest and its score in front."""
    for output in outputs.values():
        say(f"{output.name}  {output.datatype} {output.shape}", "bold")
        rows = output.rows() if output.shape else [output.data[0]]
        scores = output.datatype.startswith("FP") and len(output.shape) == 2 < output.shape[1]
        lines = []
        for number, row in enumerate(rows):
            line = [str(number), _line(row)]
            if scores and isinstance(row, list):
                best = max(range(len(row)), key=row.__getitem__)
                line[1:1] = [str(best), _number(row[best])]
            lines.append(line)
        columns = ["row", *(["best", "score"] if scores else []), "values"]
        table(columns, lines, right=("row", "best", "score"))


def _line(row: Any) -> str:
    if not isinstance(row, list):
        return _number(row)
    if row and isinstance(row[0], list):
        return json.dumps(row)
    shown = " ".join(_number(value) for value in row[:SHOWN])
    return shown if len(row) <= SHOWN else f"{shown} … {len(row) - SHOWN} more; see --json"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
