"""The ceiling: an ASGI application that reads the body and answers the same bytes always."""

from typing import Any

ANSWER = (
    b'{"model_name":"small","outputs":[{"name":"y","datatype":"FP32","shape":[1,10],"data":[]}]}'
)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
