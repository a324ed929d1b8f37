"""POST /v1/explain and KServe's :explain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from openmaas.errors import InvalidRequest
from openmaas.explaining.explanation import Explanation
from openmaas.explaining.rendering.drawing import Drawing
from openmaas.explaining.rendering.html import page
from openmaas.explaining.rendering.html_style import POLICY
from openmaas.explaining.rendering.terminal import terminal
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.explain import hidden
from openmaas.gateway.explain.answers import AnswerSubject
from openmaas.gateway.explain.body import ExplainBody, How, InstancesBody
from openmaas.gateway.explain.inquiry import Inquiry, Subject
from openmaas.gateway.explain.rows import RowSubject
from openmaas.gateway.explain.texts import TextSubject
from openmaas.gateway.openai_messages import ChatMessage, messages
from openmaas.gateway.tasks.classification import check_labels
from openmaas.gateway.tasks.common import event, texts
from openmaas.inference import Message, ModelInfo
from openmaas.serving import ranking
from openmaas.serving.admission import add

if TYPE_CHECKING:
    from openmaas.serving.asking import Asking

# What a browser may do with a page whose words come from strangers: nothing but show it.
PICTURE_HEADERS = [
    (b"content-security-policy", f"{POLICY}; sandbox".encode()),
    (b"x-content-type-options", b"nosniff"),
]
PROGRESS_SECONDS = 0.25  # between two events


class ExplainUsage(Struct):
    """What is billed: each pass's tokens or rows, forward and back."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    rows: int


class Explained(Explanation, frozen=True, kw_only=True):
    usage: ExplainUsage


class Explanations(Struct):
    """KServe's answer."""

    explanations: list[Explained]


class ProgressEvent(Struct, kw_only=True):
    object: Literal["explanation.progress"] = "explanation.progress"
    method: str
    done: int  # forward passes
    total: int


class Routes:
    """The handlers, with what draws."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing

    async def explain(self, exchange: Exchange) -> None:
        """Why a model answers as it does."""
        body = exchange.decode(await exchange.body(), ExplainBody)
        if body.stream and body.render != "json":
            raise InvalidRequest("a stream is of events: leave render out", param="render")
        subject = await _subject(exchange, body.model, body.input, body)
        inquiry = Inquiry(f"expl_{exchange.request_id}", subject, body.method, body.seed)
        if body.dry_run:
            await exchange.respond_json(await _answered(exchange, inquiry, inquiry.plan()))
            return
        exchange.ticket.priority = "batch"  # the questions that it takes wait for everybody else's
        if body.stream:
            await exchange.relay(_events(exchange, inquiry))
            return
        found = await exchange.complete(_answered(exchange, inquiry, inquiry.run()))
        if body.render == "json":
            await exchange.respond_json(found)
            return
        given = hidden.shown(exchange, subject.shown)
        shown, kind = await exchange.complete(self._shown(found, given, body))
        await exchange.respond(shown, content_type=kind, headers=PICTURE_HEADERS)

    async def _shown(
        self, found: Explanation, given: Any, body: ExplainBody
    ) -> tuple[bytes, bytes]:
        """The explanation as people read it, and of which media type it is."""
        if body.render == "png":
            return await self._drawing.drawn(found, given, dark=body.dark), b"image/png"
        if body.render == "html":
            return (
                await asyncio.to_thread(page, found, given)
            ).encode(), b"text/html; charset=utf-8"
        text = await asyncio.to_thread(terminal, found, given, width=body.width, dark=body.dark)
        return text.encode(), b"text/plain; charset=utf-8"


async def explain_instances(exchange: Exchange) -> None:
    """KServe V1's ``:explain``."""
    body = exchange.decode(await exchange.body(), InstancesBody)
    model = exchange.path["model"]
    made = []
    for number, instance in enumerate(body.instances):
        subject = await _subject(exchange, model, instance, body.parameters)
        name = f"expl_{exchange.request_id}_{number}"
        made.append(Inquiry(name, subject, body.parameters.method, body.parameters.seed))
    exchange.ticket.priority = "batch"
    found = [await exchange.complete(_answered(exchange, one, one.run())) for one in made]
    await exchange.respond_json(Explanations(found))


async def _events(exchange: Exchange, inquiry: Inquiry) -> AsyncGenerator[bytes, None]:
    """How far it is, then the explanation."""
    task = asyncio.ensure_future(_answered(exchange, inquiry, inquiry.run()))
    told: tuple[int, int] | None = None
    try:
        while True:
            if told != inquiry.passes:
                told = inquiry.passes
                yield event(ProgressEvent(method=inquiry.method, done=told[0], total=told[1]))
            if (await asyncio.wait({task}, timeout=PROGRESS_SECONDS))[0]:
                break
        yield event(task.result())
    finally:
        task.cancel()


async def _answered(exchange: Exchange, inquiry: Inquiry, work: Any) -> Explained:
    found = hidden.told(await work, exchange, inquiry.subject)
    fields = msgspec.structs.asdict(found)
    tokens = add([one.usage for one in inquiry.subject.asked()])
    total = tokens.input_tokens + tokens.output_tokens
    usage = ExplainUsage(tokens.input_tokens, tokens.output_tokens, total, tokens.rows)
    return Explained(**fields, usage=usage)


async def _subject(exchange: Exchange, name: str | None, raw: msgspec.Raw, how: How) -> Subject:
    """What is to be explained, and who answered it."""
    kind = bytes(raw).lstrip()[:1]
    text = msgspec.json.decode(raw) if kind == b'"' else None
    order = ranking.feels if how.task == "sentiment" else ranking.explains
    if name is None and text is None:
        raise InvalidRequest("say which model's answer is to be explained", param="model")
    if name is None and how.task != "sentiment":
        order = ranking.classifies_by_labels if how.labels else ranking.classifies
    found = await exchange.pipeline.asking(exchange.ticket, name, "be explained", order)
    model = found.settled()
    _check_task(model.info, how, model.name)
    if model.info.task != "predict":  # of rows the values are treated as they are asked about
        how = await hidden.seen_how(exchange, how)
    if model.info.task == "chat" and how.labels is None:
        return await _answer(exchange, model, raw, text, how)
    for param in ("answer", "fixed"):
        if getattr(how, param, None) is not None:
            raise InvalidRequest(
                f"{param} is of chat models; model {model.name!r} does {model.info.task}",
                param=param,
            )
    if model.info.task == "predict":
        return RowSubject(exchange, model, raw, how)
    if text is None:
        raise InvalidRequest(
            f"model {model.name!r} reads texts: the input is a text", param="input"
        )
    return await _text(exchange, model, text, how)


async def _text(exchange: Exchange, model: Asking, text: str, how: How) -> TextSubject:
    texts(text, exchange.limits)
    check_labels(how.labels, multi_label=bool(how.multi_label), param="labels")
    return TextSubject(exchange, model, await hidden.seen(exchange, text), how)


async def _answer(
    exchange: Exchange, model: Asking, raw: msgspec.Raw, text: str | None, how: How
) -> AnswerSubject:
    """What a chat model answers a conversation, or one user's text."""
    if text is not None:
        texts(text, exchange.limits)
        said = [Message(role="user", content=text)]
    else:
        said = messages(exchange.decode(bytes(raw), list[ChatMessage]))
    said = await hidden.seen_messages(exchange, said)
    if not isinstance(how, ExplainBody):
        return AnswerSubject(model, said, None, how)
    return AnswerSubject(
        model, said, how.answer, how, alternatives=how.alternatives, fixed=how.fixed
    )


def _check_task(info: ModelInfo, how: How, name: str) -> None:
    wanted = "classify" if how.task == "sentiment" else how.task
    able = {"predict": ("predict",), "classify": ("classify",), "embed": ("classify",)}
    does = able.get(info.task, ("classify", "chat"))
    if wanted is not None and wanted not in does:
        raise InvalidRequest(
            f"model {name!r} does {info.task}: its answers are explained as {' or '.join(does)}",
            param="task",
        )


def endpoints() -> list[Endpoint]:
    at = Routes(Drawing())
    return [
        Endpoint(
            "POST", "/v1/explain", at.explain, "openai", "Why a model answers as it does",
            body=ExplainBody, response=Explained, task="explain",
        ),
        Endpoint(
            "POST", "/v1/models/{model}:explain", explain_instances, "kserve",
            "Why a model answers rows or texts as it does", body=InstancesBody,
            response=Explanations, task="explain",
        ),
    ]  # fmt: skip
