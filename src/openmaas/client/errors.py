"""What can go wrong between a client and a server.

ClientError
├── ConnectionFailed  nobody answers at the address, or the answer stopped half-way
├── StreamBroken      a stream ended without its end mark: what came is not the whole answer
├── DatasetFailed     what was uploaded could not be read as a data set
├── JobFailed         a training job failed or was cancelled
├── BatchFailed       a batch's file is wrong; ``errors`` says where
└── ApiError          the server answered with an error; ``status`` and ``message`` say which
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx


class ClientError(Exception):
    """Base of all."""


class ConnectionFailed(ClientError):
    pass


class StreamBroken(ClientError):
    pass


class DatasetFailed(ClientError):
    pass


class JobFailed(ClientError):
    pass


class BatchFailed(ClientError):
    """
    Args:
        errors: ``code``, ``message``, ``line`` and ``param`` of each.
    """

    def __init__(self, batch: str, errors: Sequence[Any]) -> None:
        self.errors = list(errors)
        first = self.errors[0] if self.errors else {"message": "it failed", "line": None}
        where = "" if first["line"] is None else f"line {first['line']}: "
        super().__init__(f"{batch}: {where}{first['message']}")


class ApiError(ClientError):
    """The server's own words.

    Args:
        status: HTTP status; 200 for an error that came in a stream which had begun.
        code: stable name of the error, where the wire format has one.
        param: the request field at fault, if one is.
        request_id: finds the request in the server's log.
        retry_after: seconds after which trying again makes sense, if it does.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after

    @classmethod
    def of(cls, response: httpx.Response) -> ApiError:
        """The error of a response that was read."""
        try:
            found = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            found = f"{response.status_code} {response.reason_phrase}: {response.text[:200]}"
        wait = response.headers.get("retry-after", "")
        return cls._of(
            found,
            status=response.status_code,
            request_id=response.headers.get("x-request-id"),
            retry_after=float(wait) if wait.isdigit() else None,
        )

    @classmethod
    def in_stream(cls, found: Any, request_id: str | None) -> ApiError:
        """The error of an event, ``found`` being its ``error`` field."""
        return cls._of(found, status=200, request_id=request_id)

    @classmethod
    def in_batch(cls, told: Any) -> ApiError:
        """The error of one of several calls, beside its ``status``."""
        return cls._of(told["error"], status=told["status"])

    @classmethod
    def _of(cls, found: Any, **rest: Any) -> ApiError:
        status: int = rest.pop("status")
        if not isinstance(found, dict):
            return cls(status, found if isinstance(found, str) else json.dumps(found), **rest)
        message = str(found.get("message"))
        return cls(status, message, code=found.get("code"), param=found.get("param"), **rest)
