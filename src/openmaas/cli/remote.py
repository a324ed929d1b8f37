"""Which server the client commands talk to, and what they say when it does not answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from openmaas.errors import OpenMaaSError

if TYPE_CHECKING:
    from openmaas.client import Client

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[
    str,
    typer.Option("--url", envvar="OPENMAAS_URL", metavar="URL", help="The server's base URL."),
]


@contextmanager
def client(url: str) -> Iterator[Client]:
    """A client with the key of ``OPENMAAS_API_KEY``. A key is never an argument: those are
    seen by everybody on the machine.

    Raises:
        OpenMaaSError: what the client met, and what to do about it.
    """
    from openmaas.client import ApiError, Client, ClientError, ConnectionFailed

    key = os.environ.get("OPENMAAS_API_KEY")
    try:
        with Client(url, key) as found:
            yield found
    except ConnectionFailed as error:
        raise OpenMaaSError(
            f"no server answers: {error}; start one with `openmaas serve`, or say where one is: "
            "export OPENMAAS_URL=…"
        ) from None
    except ApiError as error:
        if error.status != 401 or key is not None:
            raise OpenMaaSError(str(error)) from None
        raise OpenMaaSError(
            "the server wants a key: export OPENMAAS_API_KEY=… "
            "(`openmaas serve` printed the first; `openmaas keys create NAME` makes more)"
        ) from None
    except ClientError as error:
        raise OpenMaaSError(str(error)) from None
