"""Settings: defaults, then a TOML file, then ``OPENMAAS_*``, then the command line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from openmaas.errors import ConfigurationError

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


SANDBOX_VARIABLE = "OPENMAAS_SANDBOX"


class Limits(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Bounds on what one client may ask; beyond them the answer is a 4xx, 429 or 503."""

    body_bytes: Positive = 16 * 1024 * 1024  # of a request, also after decompression
    schema_depth: Annotated[int, msgspec.Meta(ge=4, le=200)] = 32  # of a JSON schema or tool
    inputs: Positive = 2048  # texts of one embedding call, prompts of one completion call
    text_characters: Positive = 1_000_000  # of one text of a task
    messages: Positive = 2048
    tools: Positive = 128
    n: Positive = 16
    output_tokens: Positive = 4096
    stop_strings: Positive = 16
    rows: Positive = 65_536  # of one predict call
    upload_bytes: Positive = 8 << 30  # of one upload, in all its pieces
    file_bytes: Positive = 200 << 20  # of one file of a batch
    queue: Positive = 512  # requests that wait or run in one deployment
    request_seconds: Seconds = 300.0
    load_seconds: Seconds = 120.0  # from start of a worker to its first answer
    step_seconds: Seconds = 60.0  # of an engine's step, after which its worker counts as hung
    drain_seconds: Seconds = 30.0  # for requests in flight after SIGTERM


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """All settings. ``OPENMAAS_PORT`` sets ``port``, ``OPENMAAS_LIMITS_QUEUE`` sets
    ``limits.queue``; the file has the same names, limits under ``[limits]``."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8000
    data_dir: str = "~/.local/share/openmaas"
    admin_key: str | None = None  # known beforehand, for automation; at least 20 characters
    database_url: str | None = None  # postgresql://…; None: SQLite in the data folder
    # where the key is that all keys of tenants are wrapped by; one of the three
    master_key_file: str | None = None  # None: master.key in the data folder
    master_key: str | None = None  # base64 of 32 bytes; older ones after a comma
    master_key_command: str | None = None  # a program that wraps and unwraps, with its arguments
    memory_dir: str | None = None  # where unsealed files lie; None: a folder under /dev/shm
    tenancy: bool = True  # False: no keys, no quotas, nothing metered; on loopback alone
    currency: Annotated[str, msgspec.Meta(min_length=1, max_length=8)] = "USD"  # of all prices
    fairness: Literal["tokens", "arrival"] = "tokens"  # who is next where callers must wait
    allow_https_sources: bool = False  # let `models pull` fetch https: sources
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    memory_budget: Positive | None = None  # bytes of all workers; None: 70 % of the machine's
    idle_seconds: Seconds = 900.0  # without a call, after which a model leaves memory
    batch_concurrency: Positive = 64  # lines of batches that are asked at one time
    training_jobs: Positive = 1  # that compute at one time; more wait
    training_threads: Positive | None = None  # of each; None: as many as there are cores
    training_memory: Positive = 8 << 30  # bytes that each may take
    training_sessions: Positive = 4  # of one tenant that have a process; more are put away
    # "required": what reads others' files is not run where it cannot be confined
    sandbox: Literal["best", "required"] = "best"
    limits: Limits = Limits()

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).expanduser().absolute()


PREFIX = "OPENMAAS_"
# Read by the command-line client, not settings of the server.
CLIENT_VARIABLES = {"OPENMAAS_API_KEY", "OPENMAAS_URL", "OPENMAAS_CONFIG"}


def told_children() -> dict[str, str]:
    """What processes that are to be confined are told of the settings, by their environment."""
    policy = os.environ.get(SANDBOX_VARIABLE)
    return {} if policy is None else {SANDBOX_VARIABLE: policy}


def load(
    file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, Any]
) -> Settings:
    """Settings from all four places; ``overrides`` whose value is None are left out.

    Raises:
        ConfigurationError: a file that cannot be read, an unknown name, a value out of range.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"cannot read the configuration {file}: {error}") from None
    limits = values.setdefault("limits", {})
    if not isinstance(limits, dict):
        raise ConfigurationError(f"{file}: limits is a table: [limits]")
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in CLIENT_VARIABLES or not value:
            continue  # an empty variable is one that is not set
        key = name.removeprefix(PREFIX).lower()
        if key.startswith("limits_"):
            limits[key.removeprefix("limits_")] = value
        else:
            values[key] = value
    values.update({key: value for key, value in overrides.items() if value is not None})
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"settings: {error}") from None
    if settings.admin_key is not None and len(settings.admin_key) < 20:
        raise ConfigurationError("settings: admin_key must have at least 20 characters")
    if not settings.tenancy and settings.host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigurationError(
            f"settings: with tenancy off anybody who reaches {settings.host} may use the models; "
            "it is possible on 127.0.0.1 alone"
        )
    return settings
