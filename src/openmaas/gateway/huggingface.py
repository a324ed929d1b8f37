"""The Hugging Face Inference protocol, as ``huggingface_hub.InferenceClient`` speaks it.

``POST /models/{model}`` does what the model is for; ``…/pipeline/{task}`` says which task.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from openmaas.errors import InvalidRequest, NotFound
from openmaas.gateway.endpoint import Endpoint
from openmaas.gateway.exchange import Exchange
from openmaas.gateway.openai_parameters import Count
from openmaas.gateway.tasks.classification import (
    Label,
    Template,
    check_labels,
    labelled,
    ranked,
)
from openmaas.gateway.tasks.common import Input, Language, hidden, texts
from openmaas.gateway.tasks.entities import spans
from openmaas.gateway.tasks.summaries import SummarizeBody, summaries
from openmaas.gateway.tasks.translations import translations, ways
from openmaas.inference import Aggregation, Embed, Embedded, ModelInfo
from openmaas.serving import ranking
from openmaas.serving.asking import Asking
from openmaas.tasks.asking import logits

TOP_K = 5  # labels of a text where the client does not say, as pipelines of `transformers` do


class Parameters(Struct, forbid_unknown_fields=True, kw_only=True):
    candidate_labels: list[Label] | None = None
    hypothesis_template: Template | None = None
    multi_label: bool | None = None
    top_k: Count | None = None
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None
    src_lang: Language | None = None
    tgt_lang: Language | None = None
    truncation: Literal["do_not_truncate"] | None = None  # texts are read whole
    aggregation_strategy: Aggregation | None = None
    ignore_labels: list[Label] | None = None


class InferenceBody(Struct, forbid_unknown_fields=True, kw_only=True):
    inputs: Input
    parameters: Parameters | None = None
    # of feature extraction, at the root as the client sends them
    normalize: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["right"] | None = None
    prompt_name: Annotated[str, Meta(max_length=256)] | UnsetType | None = UNSET


def guess(info: ModelInfo, body: InferenceBody) -> str:
    """The task of a request that names none."""
    if body.parameters is not None and body.parameters.candidate_labels is not None:
        return "zero-shot-classification"
    known = {
        "classify": "text-classification",
        "embed": "feature-extraction",
        "chat": "summarization",
        "summarize": "summarization",
        "translate": "translation",
        "tag": "token-classification",
    }
    return known[info.task]


async def infer(exchange: Exchange) -> None:
    """One task of one model."""
    task = exchange.path.get("task")
    if task is not None and task not in TASKS:
        raise NotFound(f"no task {task[:80]!r} here; there are: {', '.join(TASKS)}")
    body = exchange.decode(await exchange.body(), InferenceBody)
    found = texts(body.inputs, exchange.limits, "inputs")
    name = exchange.path["model"]
    model = await exchange.pipeline.asking(exchange.ticket, name, "answer here", ranking.tokenizes)
    task = task or guess(model.info, body)
    _only_of_tokens(task, body.parameters)
    exchange.ticket.task, run = TASKS[task]
    await exchange.respond_json(await run(exchange, model, found, body))


def _only_of_tokens(task: str, parameters: Parameters | None) -> None:
    """Refuses what other tasks would ignore."""
    if parameters is None or task == "token-classification":
        return
    for name in ("aggregation_strategy", "ignore_labels"):
        if getattr(parameters, name) is not None:
            raise InvalidRequest(f"{name} is of token-classification, not of {task}", param=name)


async def _classify(
    exchange: Exchange, model: Asking, found: list[str], body: InferenceBody
) -> Any:
    parameters = body.parameters or Parameters()
    if parameters.function_to_apply == "none" and model.info.task == "classify":
        seen = await hidden(exchange, found, "inputs")
        bare = await exchange.complete(logits(model, list(seen)))
        return [ranked(model.info.labels, row, parameters.top_k or TOP_K) for row in bare]
    many = parameters.function_to_apply == "sigmoid"
    labels, rows = await labelled(exchange, model, found, None, multi_label=many)
    return [ranked(labels, row, parameters.top_k or TOP_K) for row in rows]


async def _choose(exchange: Exchange, model: Asking, found: list[str], body: InferenceBody) -> Any:
    parameters = body.parameters or Parameters()
    labels, many = parameters.candidate_labels, bool(parameters.multi_label)
    if labels is None:
        raise InvalidRequest("parameters.candidate_labels is missing", param="candidate_labels")
    check_labels(labels, multi_label=many, param="candidate_labels")
    _, rows = await labelled(
        exchange,
        model,
        found,
        labels,
        multi_label=many,
        template=parameters.hypothesis_template,
    )
    answers = [ranked(labels, row, None) for row in rows]
    return answers[0] if isinstance(body.inputs, str) else answers


async def _features(
    exchange: Exchange, model: Asking, found: list[str], body: InferenceBody
) -> Any:
    if body.normalize is False:
        raise InvalidRequest("embeddings here have unit length: leave normalize out")
    if isinstance(body.prompt_name, str):
        raise InvalidRequest("this model has no prompts: leave prompt_name out")
    embed = Embed(inputs=list(found), truncate=bool(body.truncate))
    answer = await exchange.complete(model.ask(embed))
    assert isinstance(answer, Embedded)
    import numpy as np

    return np.frombuffer(answer.data, "<f4").reshape(len(found), answer.dimensions).tolist()


async def _summarize(
    exchange: Exchange, model: Asking, found: list[str], body: InferenceBody
) -> Any:
    if ranking.summarizes(model.info) is None:
        raise InvalidRequest("this model cannot summarize: name a chat or an embedding model")
    wanted = SummarizeBody(input=body.inputs)
    made = await exchange.complete(summaries(exchange, model, found, wanted))
    return [{"summary_text": one.summary} for one in made]


async def _translate(
    exchange: Exchange, model: Asking, found: list[str], body: InferenceBody
) -> Any:
    parameters, info = body.parameters or Parameters(), model.info
    target = parameters.tgt_lang
    if target is None and len(info.target_languages) == 1:
        (target,) = info.target_languages
    if target is None or ranking.translates_somehow(info) is None:
        known = ", ".join(info.target_languages[:20]) or "for a chat model any language"
        raise InvalidRequest(f"parameters.tgt_lang is needed: {known}", param="tgt_lang")
    through = await ways([model], found, parameters.src_lang, target)
    made = await exchange.complete(translations(exchange, found, through))
    return [{"translation_text": one.translation} for one in made]


async def _tag(exchange: Exchange, model: Asking, found: list[str], body: InferenceBody) -> Any:
    if ranking.tags(model.info) is None:
        raise InvalidRequest("this model finds no entities: name a token classifier")
    parameters = body.parameters or Parameters()
    ignored = parameters.ignore_labels
    if ignored is not None and "O" not in ignored:
        raise InvalidRequest(
            "ignore_labels: what is outside of every entity is not told of here; keep O among them",
            param="ignore_labels",
        )
    how = parameters.aggregation_strategy or "simple"
    name = "entity" if how == "none" else "entity_group"
    answers = [
        [
            {
                name: one.label, "score": one.score, "word": text[one.start : one.end],
                "start": one.start, "end": one.end,
            }
            for one in of_one
            if one.label not in (ignored or ())
        ]
        for text, of_one in zip(found, await spans(exchange, model, found, how), strict=True)
    ]  # fmt: skip
    return answers[0] if isinstance(body.inputs, str) else answers


TASKS = {  # what the ledger calls each, and what does it
    "text-classification": ("classify", _classify),
    "zero-shot-classification": ("classify", _choose),
    "feature-extraction": ("embed", _features),
    "summarization": ("summarize", _summarize),
    "translation": ("translate", _translate),
    "token-classification": ("entities", _tag),
}


def endpoints() -> list[Endpoint]:
    return [
        Endpoint(
            "POST", path, infer, "huggingface", "A task in Hugging Face's protocol",
            body=InferenceBody, response=Any, task="infer",
        )
        for path in ("/models/{model}", "/models/{model}/pipeline/{task}")
    ]  # fmt: skip
