"""``hf:`` sources: a model repository at one commit, through ``huggingface_hub``.

The endpoint, proxies and tokens are that library's own (``HF_ENDPOINT``, ``HF_TOKEN`` …).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from openmaas.disk import need_space
from openmaas.errors import ArtifactRefused, SourceUnavailable
from openmaas.registry.fetching import (
    MAX_BYTES,
    MAX_FILES,
    MAX_LISTED,
    Progress,
    Wanted,
    wanted_files,
)

_SOURCE = re.compile(
    r"hf:(?P<repository>[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})"
    r"(?:@(?P<commit>[^/]*))?(?:/(?P<path>[A-Za-z0-9_][A-Za-z0-9_./-]{0,299}))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WHOLE = (".gguf", ".onnx", ".keras")  # formats of which one file is a model


def fetch(wanted: Wanted, folder: Path, progress: Progress) -> Path:
    """Brings the named file, or the files of the repository that an importer reads.

    What was cut off is resumed when the same ``folder`` is given again.

    Raises:
        SourceUnavailable: not reachable, no such repository, commit or file; or the revision
            is a branch or tag, which may be other bytes tomorrow.
        ArtifactRefused: the repository is too large.
    """
    found = _SOURCE.fullmatch(wanted.source)
    if found is None:
        raise SourceUnavailable("An hf: source reads hf:OWNER/NAME@COMMIT or …@COMMIT/FILE")
    commit = found["commit"] or ""
    if _COMMIT.fullmatch(commit) is None:
        raise SourceUnavailable(
            f"{wanted.source}: a branch or tag may change; pin the commit: "
            f"hf:{found['repository']}@ and its 40 hex digits."
        )
    # Set before the import, which reads it: the plain protocol resumes, is checked here by
    # sha256, and goes through HTTP proxies; the other brings a downloader of its own.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub.errors

    errors: Any = huggingface_hub.errors

    try:
        return _fetch(huggingface_hub, found["repository"], commit, found["path"], folder, progress)
    except errors.GatedRepoError:
        raise SourceUnavailable(
            f"{found['repository']} asks you to accept its terms first; do so on its page, "
            "then set HF_TOKEN."
        ) from None
    except errors.RepositoryNotFoundError:
        raise SourceUnavailable(
            f"There is no repository {found['repository']}, or it is private: set HF_TOKEN."
        ) from None
    except (errors.HTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of our own disk
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise SourceUnavailable(
            f"{wanted.source} could not be fetched ({what[:200]}); trying again resumes it."
        ) from None


def _fetch(
    hub: Any, repository: str, commit: str, path: str | None, folder: Path, progress: Progress
) -> Path:
    progress(0, None, f"asking for {repository}")
    info = hub.HfApi().model_info(repository, revision=commit, files_metadata=True)
    if info.sha != commit:
        raise SourceUnavailable(f"{repository} answered with another commit than {commit}.")
    siblings = info.siblings or []
    if len(siblings) > MAX_LISTED:
        raise ArtifactRefused(f"{repository} lists too many files.")
    sizes = {file.rfilename: int(file.size or 0) for file in siblings}
    names = [path] if path is not None else _of_one_model(repository, wanted_files(sizes))
    if path is not None and path not in wanted_files(sizes):
        raise SourceUnavailable(f"{repository} has no file {path} that is a model's.")
    total = sum(sizes[name] for name in names)
    if len(names) > MAX_FILES or total > MAX_BYTES:
        raise ArtifactRefused(f"{repository} is larger than a model may be.")
    need_space(folder, total)
    target = folder / "model"
    done = 0
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        _download(
            hub.hf_hub_url(repository, name, revision=commit),
            target / name,
            (commit, sizes[name]),
            _reporter(progress, done, total, name),
        )
        done += sizes[name]
    return _chosen(target, names, whole=path is None)


def _download(url: str, target: Path, expected: tuple[str, int], reporter: Any) -> None:
    """The library's own download, into a file that stays when it is cut off.

    ``hf_hub_download`` throws away what it has of a file when its process ends (2.4); the
    function below it takes what is there and asks for the rest.
    """
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    commit, size = expected
    headers = build_hf_headers()
    about = get_hf_file_metadata(url, headers=headers)
    if about.commit_hash != commit or about.size not in (None, size):
        raise SourceUnavailable(f"{target.name} is another file now than the repository listed.")
    if urlsplit(about.location).netloc != urlsplit(url).netloc:
        headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
    # The commit is part of the folder's name, so that a part is always one of the same file.
    part = target.with_name(target.name + ".part")
    if target.is_file():
        return
    with open(part, "ab") as out:
        http_get(
            about.location,
            out,
            resume_size=out.tell(),
            headers=headers,
            expected_size=size,
            tqdm_class=reporter,
        )
    part.rename(target)


def _of_one_model(repository: str, names: list[str]) -> list[str]:
    """Of a repository that holds the same model in several forms, the files of one."""
    if any(name.endswith(".safetensors") and "/" not in name for name in names):
        return [name for name in names if not name.endswith((*_WHOLE, ".xml", ".bin", "_data"))]
    if any(name.endswith(".xml") for name in names):
        return [name for name in names if not name.endswith(_WHOLE)]
    if sum(name.endswith(_WHOLE) for name in names) == 1:
        return names
    choices = ", ".join(name for name in names if name.endswith(_WHOLE))[:500]
    raise SourceUnavailable(
        f"{repository}: name the file, as hf:{repository}@COMMIT/FILE. "
        f"It has: {choices or 'no safetensors, GGUF, ONNX, OpenVINO or Keras file'}."
    )


def _chosen(target: Path, names: list[str], *, whole: bool) -> Path:
    """The file where one is the model, else the folder."""
    models = [name for name in names if name.endswith(_WHOLE)]
    if not whole or (len(models) == 1 and len(names) == 1):
        return target / names[0]
    if len(models) == 1 and models[0].endswith((".gguf", ".keras")):
        return target / models[0]
    return target


def _reporter(progress: Progress, before: int, total: int, name: str) -> Callable[..., Any]:
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Reporter(tqdm):
        """The library's progress bar, drawing nothing and telling ours instead."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options["disable"] = False
            options["file"] = _Nowhere()
            super().__init__(*args, **options)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> Any:
            self.n += n or 0
            progress(min(before + int(self.n), total), total, f"fetching {name}")

    return Reporter


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass
