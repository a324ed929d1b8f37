"""Every error that OpenMaaS raises on purpose.

OpenMaaSError
├── InvalidRequest            the caller's input is wrong; ``param`` names the field
│   ├── UnsupportedParameter  a valid field that this model's runtime cannot honour
│   ├── PayloadTooLarge       body, prompt or number beyond a limit
│   ├── UnsupportedMedia      content type or encoding that is not read here
│   └── PersonalData          there is some, and the caller's policy refuses it
├── Unauthenticated           no key, or one that is unknown or revoked
├── PermissionDenied          the key's scope is too small
├── NotFound                  no such route, model, version or deployment
│   ├── ModelNotFound
│   └── Erased                sealed with a key that is destroyed
├── MethodNotAllowed
├── Conflict                  the state of things forbids it now
├── RateLimited               slow down; ``retry_after`` seconds
├── QuotaExhausted            used up; ``retry_after`` seconds until it begins anew, if it does
├── Overloaded                queue full, model still loading, shutting down; ``retry_after``
├── InsufficientMemory        a model that the memory budget can never hold
├── DeadlineExceeded          the request's time ran out
├── WorkerFailed              the process that held the request died; ``retry_after``
├── EngineFailed              the engine refused or broke on this request alone
├── TrainingFailed            a job or session cannot go on; the message says why
├── Abandoned                 the client closed its connection: nobody reads the answer
├── StorageFull
├── StorageUnavailable        the database is away; ``retry_after``
├── SealBroken                stored bytes are not those that were sealed
└── RegistryError             what the operator's commands meet
    ├── ArtifactRefused       a model file that is unsafe, damaged or of no known format
    ├── ConversionFailed      the child process could not make a servable form of it
    ├── SourceUnavailable     a model's source cannot be reached or does not match its sha256
    └── ConfigurationError    a setting is unknown or out of range
        └── WrongMaster       the master key of this data folder is not at hand

They carry facts, not wire formats: each wire format translates them in
``gateway/errors.py``. ``code`` is stable and crosses process borders.
"""

from __future__ import annotations


class OpenMaaSError(Exception):
    """Base of all; ``message`` is safe to show to a client.

    Args:
        message: what is wrong and what to do about it; holds no secret and no prompt.
        param: the request field at fault, if one is.
        retry_after: seconds after which trying again makes sense, if it does.
    """

    code = "server_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class InvalidRequest(OpenMaaSError):
    code = "invalid_request"


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"


class PayloadTooLarge(InvalidRequest):
    code = "payload_too_large"


class UnsupportedMedia(InvalidRequest):
    code = "unsupported_media"


class PersonalData(InvalidRequest):
    """Names kinds and places, never the data."""

    code = "content_policy_violation"


class Unauthenticated(OpenMaaSError):
    code = "invalid_api_key"


class PermissionDenied(OpenMaaSError):
    code = "permission_denied"


class NotFound(OpenMaaSError):
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class Erased(NotFound):
    """The key that it was sealed with is destroyed: nobody can read it any more."""

    code = "erased"


class MethodNotAllowed(OpenMaaSError):
    code = "method_not_allowed"


class Conflict(OpenMaaSError):
    code = "conflict"


class RateLimited(OpenMaaSError):
    code = "rate_limit_exceeded"


class QuotaExhausted(OpenMaaSError):
    code = "insufficient_quota"


class Overloaded(OpenMaaSError):
    code = "overloaded"


class InsufficientMemory(OpenMaaSError):
    """A model that cannot be loaded here, however long one waits."""

    code = "insufficient_memory"


class DeadlineExceeded(OpenMaaSError):
    code = "deadline_exceeded"


class WorkerFailed(OpenMaaSError):
    code = "worker_failed"


class EngineFailed(OpenMaaSError):
    code = "engine_failed"


class TrainingFailed(OpenMaaSError):
    """
    Args:
        cause: a code of its own, as the trainer tells it.
    """

    code = "training_failed"

    def __init__(self, message: str, *, cause: str = "training_failed") -> None:
        super().__init__(message)
        self.code = cause


class Abandoned(OpenMaaSError):
    code = "abandoned"


class StorageFull(OpenMaaSError):
    code = "storage_full"


class StorageUnavailable(OpenMaaSError):
    code = "storage_unavailable"


class SealBroken(OpenMaaSError):
    """Stored bytes are not those that were sealed: changed, cut, or put in another's place."""

    code = "seal_broken"


class RegistryError(OpenMaaSError):
    code = "registry_error"


class ArtifactRefused(RegistryError):
    code = "artifact_refused"


class ConversionFailed(RegistryError):
    code = "conversion_failed"


class SourceUnavailable(RegistryError):
    code = "source_unavailable"


class ConfigurationError(RegistryError):
    code = "configuration_error"


class WrongMaster(ConfigurationError):
    """The master key that keys of tenants are wrapped by is not at hand."""

    code = "wrong_master"


def _tree(root: type[OpenMaaSError]) -> dict[str, type[OpenMaaSError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


BY_CODE = _tree(OpenMaaSError)
"""Error class by its ``code``: how an error that crossed a process border is raised again."""
