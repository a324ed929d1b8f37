"""A small client of OpenMaaS; it needs httpx alone.

with Client("http://127.0.0.1:8000", api_key="om-…") as client:
    print(client.chat("smollm2-135m", "What is gravity?").text)
"""

from openmaas.client.batches import Batch, File, Result
from openmaas.client.client import Client
from openmaas.client.datasets import Dataset
from openmaas.client.errors import (
    ApiError,
    BatchFailed,
    ClientError,
    ConnectionFailed,
    DatasetFailed,
    JobFailed,
    StreamBroken,
)
from openmaas.client.forms import (
    Classification,
    Entity,
    Health,
    Output,
    Relevance,
    Reply,
    Translation,
    Usage,
)

__all__ = [
    "ApiError",
    "Batch",
    "BatchFailed",
    "Classification",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Dataset",
    "DatasetFailed",
    "Entity",
    "File",
    "Health",
    "JobFailed",
    "Output",
    "Relevance",
    "Reply",
    "Result",
    "StreamBroken",
    "Translation",
    "Usage",
]
