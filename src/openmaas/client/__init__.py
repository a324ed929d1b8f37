"""A small client of OpenMaaS; it needs httpx alone.

with Client("http://127.0.0.1:8000", api_key="om-…") as client:
    print(client.chat("smollm2-135m", "What is gravity?").text)
"""

from openmaas.client.client import Client
from openmaas.client.errors import ApiError, ClientError, ConnectionFailed, StreamBroken
from openmaas.client.forms import Health, Output, Reply, Usage

__all__ = [
    "ApiError",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Health",
    "Output",
    "Reply",
    "StreamBroken",
    "Usage",
]
