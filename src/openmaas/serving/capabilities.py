"""Whether a loaded model can do what a request asks; what it cannot is refused by name."""

from __future__ import annotations

from openmaas.errors import InvalidRequest, UnsupportedParameter
from openmaas.inference import (
    Attribute,
    Chat,
    Complete,
    Embed,
    Loglikelihood,
    ModelInfo,
    Predict,
    Request,
    Score,
    Tag,
    Tokenize,
    Translate,
)

TASKS: dict[type, tuple[str, ...]] = {
    Chat: ("chat",),
    Complete: ("chat",),
    Loglikelihood: ("chat",),
    Embed: ("embed",),
    Predict: ("predict",),
    Score: ("classify",),
    Tag: ("tag",),
    Translate: ("translate", "summarize"),
    Attribute: ("predict", "classify"),
    Tokenize: ("chat", "embed", "classify", "translate", "summarize", "tag"),
}


def check(info: ModelInfo, model: str, request: Request) -> None:
    """
    Raises:
        InvalidRequest: the model does another task.
        UnsupportedParameter: the first parameter that its runtime cannot honour.
    """
    able = TASKS[type(request)]
    if info.task not in able:
        raise InvalidRequest(
            f"model {model!r} does {info.task}, not {' or '.join(able)}", param="model"
        )
    for param, option in _needs(request):
        if option not in info.options:
            raise UnsupportedParameter(
                f"{param} is not supported by model {model!r} (runtime {info.runtime})",
                param=param,
            )


def _needs(request: Request) -> list[tuple[str, str]]:
    """(the caller's parameter, the runtime option that it needs)"""
    if isinstance(request, Embed):
        return [("dimensions", "dimensions")] if request.dimensions is not None else []
    if isinstance(request, Loglikelihood):
        return [("alternatives", "top_echo_logprobs")] if request.alternatives else []
    if not isinstance(request, Chat | Complete):
        return []
    sampling = request.sampling
    asked = {
        ("seed", "seed"): sampling.seed is not None,
        ("top_k", "top_k"): sampling.top_k is not None,
        ("presence_penalty", "penalties"): sampling.presence_penalty != 0,
        ("frequency_penalty", "penalties"): sampling.frequency_penalty != 0,
        ("logit_bias", "logit_bias"): bool(sampling.logit_bias),
        ("logprobs", "logprobs"): sampling.logprobs is not None,
        ("response_format", "json_schema"): sampling.json_schema is not None,
        ("ignore_eos", "ignore_eos"): sampling.ignore_eos,
    }
    if isinstance(request, Chat):
        forced = request.tool_choice not in ("auto", "none")
        asked["tools", "tools"] = bool(request.tools)
        asked["tool_choice", "json_schema"] = bool(request.tools) and forced
        asked["top_logprobs", "top_logprobs"] = bool(sampling.logprobs)
    else:
        asked["echo", "echo_logprobs"] = request.echo and sampling.logprobs is not None
        # One alternative is what evaluation harnesses send; it is left null where unknown.
        asked["logprobs", "top_logprobs"] = (sampling.logprobs or 0) > 1
    return [need for need, is_asked in asked.items() if is_asked]
