"""The bare engine: OpenVINO GenAI on the model's own artifact, with the server's settings.

Usage: ``bare_language.py FOLDER ENGINE``; ENGINE is JSON with ``settings`` (of the scheduler),
``properties`` (of the engine) and ``lookup`` (settings of prompt lookup, for runs of one).
Says ``ready``, then reads a run a line: ``conversations`` to run at the same time, each to
``max_tokens``. Prints a JSON line for each: its tokens a second and each sequence's seconds to
the first token. Token ids go in and come out: templates and detokenizing are not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai


def main(folder: Path, engine: dict[str, Any]) -> None:
    plain = pipeline_of(folder, engine["settings"], engine["properties"])
    single = pipeline_of(
        folder, engine["settings"], {**engine["properties"], "prompt_lookup": True}
    )
    print("ready", flush=True)
    for line in sys.stdin:
        one = json.loads(line)
        alone = len(one["conversations"]) == 1
        pipeline, lookup = (single, engine["lookup"]) if alone else (plain, {})
        result = run(pipeline, one["conversations"], one["max_tokens"], lookup)
        print(json.dumps(result), flush=True)


def pipeline_of(folder: Path, settings: dict[str, Any], properties: dict[str, Any]) -> Any:
    """The engine on an artifact."""
    scheduler = genai.SchedulerConfig()
    for name, value in settings.items():
        setattr(scheduler, name, value)
    gguf = folder / "model.gguf"
    source = gguf if gguf.exists() else folder
    pipeline = genai.ContinuousBatchingPipeline(str(source), scheduler, "CPU", properties)
    template = folder / "chat_template.jinja"
    if template.exists():
        pipeline.get_tokenizer().set_chat_template(template.read_text(encoding="utf-8"))
    return pipeline


def run(
    pipeline: Any, conversations: list[Any], max_tokens: int, lookup: dict[str, int]
) -> dict[str, Any]:
    """All conversations at the same time, greedily, to exactly ``max_tokens`` each."""
    prompts = [encode(pipeline.get_tokenizer(), messages) for messages in conversations]
    config = genai.GenerationConfig()
    config.max_new_tokens = max_tokens
    config.ignore_eos = True
    config.do_sample = False
    for name, value in lookup.items():
        setattr(config, name, value)
    began = time.perf_counter()
    handles = [pipeline.add_request(id, ids, config) for id, ids in enumerate(prompts)]
    first = [0.0] * len(handles)
    tokens = 0
    while pipeline.has_non_finished_requests():
        pipeline.step()
        for index, handle in enumerate(handles):
            if handle.can_read():
                tokens += sum(len(out.generated_ids) for out in handle.read().values())
                first[index] = first[index] or time.perf_counter() - began
    elapsed = time.perf_counter() - began
    return {
        "tokens": tokens,
        "per_second": tokens / elapsed,
        "first_seconds": first,
        "prompt_tokens": [int(np.array(ids.data).size) for ids in prompts],
    }


def encode(tokenizer: Any, messages: list[dict[str, str]]) -> ov.Tensor:
    """A conversation's token ids, through the model's own template."""
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False).input_ids


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
