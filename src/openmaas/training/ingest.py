"""The process that reads an upload: ``python -m openmaas.training.ingest`` in a sandbox.

It is told a task as JSON on standard input, and leaves a data set's canonical form in ``out``
(``data.py`` says which files) and its answer in ``result.json`` beside it.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

import msgspec

from openmaas.disk import disk_errors
from openmaas.errors import ArtifactRefused, InvalidRequest, StorageFull
from openmaas.redaction.policy import RedactionPolicy
from openmaas.training.data import Description, Preview
from openmaas.training.options import Format, Options


class Task(msgspec.Struct, frozen=True):
    format: Format
    source: str  # path of the upload
    out: str  # path of an empty folder
    options: Options
    redaction: RedactionPolicy | None = None  # None: nothing is looked for


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    description: Description | None = None
    preview: Preview | None = None
    error: str | None = None  # the code of one of ours
    message: str = ""


def main() -> None:
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    out = Path(task.out)
    try:
        module = importlib.import_module(f"openmaas.training.formats.{task.format}")
        # Not at the top: the gateway, which reads answers, has no use for Arrow.
        from openmaas.training.formats.hiding import Hiding

        hiding = Hiding(task.redaction)
        with disk_errors():
            description, preview = module.read(Path(task.source), out, task.options, hiding)
        answer = Answer(description=description, preview=preview)
    except (InvalidRequest, ArtifactRefused, StorageFull) as error:
        answer = Answer(error=error.code, message=error.message)
    except MemoryError:
        answer = Answer(error=InvalidRequest.code, message="it takes more memory than it may")
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        message = (
            f"{package} is not installed on this server; install the train extra: make install"
        )
        answer = Answer(error=InvalidRequest.code, message=message)
    except Exception as error:
        # Whatever a hostile or odd file makes a library raise ends here, in a sentence.
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        why = lines[0][:300] if lines else type(error).__name__
        answer = Answer(error=InvalidRequest.code, message=f"the {task.format} is damaged: {why}")
    out.with_name("result.json").write_bytes(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
