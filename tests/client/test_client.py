"""The client against a real server, and alone."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from openmaas import __version__
from openmaas.client import ApiError, Client, ConnectionFailed, StreamBroken
from tests.processes import ServerProcess

MODELS = {
    *("smollm2-135m", "minilm-l6-v2", "digits", "sentiment", "entities", "en-pt", "pt-en", "echo")
}


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.url, server.key) as found:
        yield found


def test_it_needs_httpx_alone() -> None:
    script = (
        "import sys, openmaas.client; "
        "ours = {m for m in sys.modules if m.startswith('openmaas')}; "
        "print(*sorted(ours - {m for m in ours if m.startswith('openmaas.client')})); "
        "print(*[m for m in ('msgspec', 'numpy', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["openmaas", ""], done.stdout + done.stderr


def test_models_and_health(client: Client) -> None:
    assert set(client.models()) >= MODELS  # and what the documents had it train
    health = client.health()
    assert health.status == "ok"
    assert health.version == __version__
    assert health.models["digits"] == "ready"


def test_chat(client: Client) -> None:
    reply = client.chat("smollm2-135m", "What is gravity?", max_tokens=20, temperature=0)
    assert "physics" in reply.text
    assert reply.finish_reason in ("stop", "length")
    assert reply.usage.input_tokens > 5
    assert 0 < reply.usage.output_tokens <= 20


def test_a_stream_is_the_same_answer(client: Client) -> None:
    how = {"max_tokens": 16, "temperature": 0}
    pieces = list(client.stream("smollm2-135m", "Count to five.", **how))
    assert len(pieces) > 3
    assert "".join(pieces) == client.chat("smollm2-135m", "Count to five.", **how).text


def test_a_stream_may_be_left_early(client: Client) -> None:
    stream = client.stream("echo", "Hello", max_tokens=4000)
    next(stream)
    stream.close()
    assert client.chat("echo", "Hello", max_tokens=3).usage.output_tokens == 3


def test_embed(client: Client) -> None:
    texts = ["A cat sits.", "A kitten is sitting.", "Stock prices fell."]
    vectors = np.array(client.embed("minilm-l6-v2", texts))
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    alike = vectors @ vectors.T
    assert alike[0, 1] > alike[0, 2] + 0.3
    (alone,) = client.embed("minilm-l6-v2", texts[0])
    assert np.dot(alone, vectors[0]) > 0.999


def test_predict(client: Client) -> None:
    rows = [[0.0] * 64, [16.0] * 64]
    by_position = client.predict("digits", rows)["probabilities"]
    by_name = client.predict("digits", {"pixels": rows}, version=1)["probabilities"]
    assert by_position.shape == [2, 10]
    assert by_position.datatype == "FP32"
    nested = by_position.rows()
    assert len(nested) == 2
    np.testing.assert_allclose(nested, by_name.rows(), atol=1e-6)
    np.testing.assert_allclose(np.sum(nested, axis=1), 1, atol=1e-5)


def test_rows_that_do_not_fit_are_refused_here_or_there(client: Client) -> None:
    with pytest.raises(ValueError, match="differ"):
        client.predict("digits", [[1.0, 2.0], [1.0]])
    with pytest.raises(ValueError, match="pixels"):
        client.predict("digits", {"pixel": [[1.0]]})
    with pytest.raises(ApiError) as raised:
        client.predict("digits", [[1.0, 2.0]])
    assert raised.value.status == 400


def test_an_error_carries_all_that_the_server_told(client: Client) -> None:
    with pytest.raises(ApiError) as raised:
        client.chat("gpt-9", "Hello")
    error = raised.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.request_id is not None
    assert "digits" in str(error)
    with pytest.raises(ApiError) as raised:
        list(client.stream("echo", "Hello", n=1_000_000))
    assert raised.value.param == "n"


def test_no_key_and_no_server(server: ServerProcess) -> None:
    with Client(server.url) as client, pytest.raises(ApiError) as raised:
        client.models()
    assert raised.value.status == 401
    with Client("http://127.0.0.1:9") as client, pytest.raises(ConnectionFailed):
        client.models()


@pytest.mark.parametrize(("reset", "said"), [(False, "ended"), (True, "reset")])
def test_a_stream_that_stops_without_its_end_is_not_taken_for_whole(reset: bool, said: str) -> None:
    event = b'data: {"choices": [{"delta": {"content": "half"}}]}\n\n'
    hang_up = threading.Event()
    with answering(event, hang_up, reset=reset) as url, Client(url) as client:
        stream = client.stream("m", "Hello")
        assert next(stream) == "half"
        hang_up.set()
        with pytest.raises(StreamBroken, match=said):
            next(stream)


def test_an_error_within_a_stream_is_raised() -> None:
    event = b'data: {"error": {"message": "the worker died", "code": "worker_failed"}}\n\n'
    with answering(event + b"data: [DONE]\n\n") as url, Client(url) as client:
        with pytest.raises(ApiError, match="the worker died") as raised:
            list(client.stream("m", "Hello"))
        assert raised.value.code == "worker_failed"


@contextmanager
def answering(
    events: bytes, hang_up: threading.Event | None = None, *, reset: bool = False
) -> Iterator[str]:
    """A server that sends these bytes of a stream to one caller and hangs up, when told to."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as request:
            # All of it: closing with bytes unread would reset the connection.
            headers = {
                line.split(b":")[0].lower(): line for line in iter(request.readline, b"\r\n")
            }
            request.read(int(headers[b"content-length"].split(b":")[1]))
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            connection.sendall(head + b"connection: close\r\n\r\n" + events)
            if hang_up is not None:
                hang_up.wait(30)
            if reset:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join()
        listener.close()


# --- language tasks --------------------------------------------------------------------------


def test_entities(client: Client) -> None:
    text = "My name is Emily Watson and I live at 5 Chapel Lane, Leeds."
    spans, none = client.entities([text, "It rains."], model="entities")
    assert [(one.text, one.label) for one in spans] == [
        ("Emily Watson", "PERSON"),
        ("5 Chapel Lane, Leeds", "ADDRESS"),
    ]
    assert text[spans[0].start : spans[0].end] == "Emily Watson"
    assert none == []


def test_labels_and_sentiment(client: Client) -> None:
    (one,) = client.classify("The striker scored twice.", ["sport", "cooking"])
    assert one.label == "sport"
    assert one.score == one.scores["sport"] > 0.5
    found = client.sentiment(["I love it", "I hate it"])
    assert [one.label for one in found] == ["positive", "negative"]


def test_summaries_and_translations_whole_and_in_pieces(client: Client) -> None:
    text = "The book is on the table. The cat sleeps under it. It is late in the evening."
    (summary,) = client.summarize(text, length="short")
    assert summary in text
    assert "".join(client.stream_summary(text, length="short")).strip() == summary
    (made,) = client.translate(text, "pt", source="en")
    assert (made.source, made.target, made.model) == ("en", "pt", "en-pt")
    assert "livro" in made.text
    assert "".join(client.stream_translation(text, "pt", source="en")) == made.text
    with pytest.raises(ApiError, match="no deployed model translates"):
        list(client.stream_translation(text, "de", source="en"))


def test_relevance_and_tokens(client: Client) -> None:
    first, _ = client.rerank("Who wrote Hamlet?", ["Boil the eggs.", "Shakespeare wrote Hamlet."])
    assert first.index == 1
    (tokens,) = client.tokenize("smollm2-135m", "hello world")
    assert "".join(tokens).strip() == "hello world"
