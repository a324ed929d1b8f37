"""The process that reads a model file: ``python -m openmaas.registry.convert`` in a sandbox.

It is told a job as JSON on standard input, says what it does in lines on standard output,
and leaves files in ``out`` and its answer in ``result.json`` beside it.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec

from openmaas.disk import disk_errors
from openmaas.errors import ArtifactRefused, ConversionFailed, RegistryError, StorageFull
from openmaas.registry.manifest import Description
from openmaas.registry.recognise import Kind

SAID = "@openmaas "  # before each line that is ours; engines print what they like
ERRORS: dict[str, type[Any]] = {
    error.code: error for error in (ArtifactRefused, ConversionFailed, StorageFull)
}


class Job(msgspec.Struct, frozen=True):
    kind: Kind
    source: str  # path of a file or folder that this process may use up
    out: str  # path of an empty folder for the artifact's files


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    description: Description | None = None
    error: str | None = None  # a key of ERRORS
    message: str = ""


def say(text: str) -> None:
    """Tells whoever watches the import what happens now."""
    print(SAID + text, flush=True)


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    layers = os.environ.get("OPENMAAS_ENFORCED", "")
    say(f"confined by {layers.replace(',', ', ')}" if layers else "not confined")
    try:
        importer = importlib.import_module(f"openmaas.registry.importers.{job.kind}")
        with disk_errors():
            description = importer.convert(Path(job.source), Path(job.out), say)
        answer = Answer(description=description)
    except (RegistryError, StorageFull) as error:
        answer = Answer(error=error.code, message=error.message)
    except MemoryError:
        answer = Answer(
            error=ConversionFailed.code,
            message="The conversion ran out of the memory that it may use.",
        )
    except Exception as error:
        # Whatever a hostile or odd file makes a library raise ends here, in a sentence.
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        answer = Answer(
            error=ConversionFailed.code,
            message=f"{type(error).__name__}: {lines[0][:300] if lines else 'no reason given'}",
        )
    Path(job.out).with_name("result.json").write_bytes(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
