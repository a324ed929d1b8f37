"""Marian students (as browsers translate with) → two OpenVINO graphs with 8-bit weights.

The decoder's layers are recurrent (SSRU), which CTranslate2 does not know. No framework takes
part: the graphs are built operation by operation and compared with a second, independent forward
pass in NumPy.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import sentencepiece

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers import marian_graph, marian_reference, marian_weights
from openmaas.registry.importers.marian_weights import Student
from openmaas.registry.manifest import Description, Verification
from openmaas.registry.recognise import MAX_TOKENIZER

# Of a token's natural log-probability: in float32, and as it is served, when OpenVINO may round
# what flows between layers to bfloat16 or eight bits too.
EXACT, MEAN_TOLERANCE, TOLERANCE = 1e-3, 0.3, 2.0
PRECISELY = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
CONTEXT = 256  # tokens of a sentence: such students are trained on single sentences
SAMPLES, LONGEST = 8, 24
END = 0  # Marian's SentencePiece models number the end of a sentence so
_NAME = re.compile(r"model\.([a-z]{2,3}?)([a-z]{2,3})\.intgemm[a-z0-9.]*\.bin")


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Args:
        source: a folder with ``model.enpt.intgemm….bin`` and ``vocab.enpt.spm``; the languages
            are in the name of the model's file, as Firefox names it.

    Raises:
        ArtifactRefused: the model or vocabulary is damaged or missing.
        ConversionFailed: a model of another family, or the graphs compute other numbers.
    """
    matches = [match for path in sorted(source.iterdir()) if (match := _NAME.fullmatch(path.name))]
    pieces = sorted(source.glob("vocab.*.spm"))
    if len(matches) != 1 or len(pieces) != 1:
        raise ConversionFailed("The folder needs one model.enpt.intgemm….bin and one vocab.….spm.")
    model = marian_weights.read(source / matches[0][0])
    _check_vocabulary(pieces[0], len(model.words.values))
    shutil.copyfile(pieces[0], out / "source.spm")
    say("building the graphs of a Marian student")
    for name, graph in (("encoder", marian_graph.encoder), ("decoder", marian_graph.step)):
        openvino.save_model(graph(model), str(out / f"{name}.xml"), compress_to_fp16=False)
    say("comparing their probabilities with a forward pass in NumPy")
    return Description(
        format="openvino-translator",
        task="translate",
        architecture="marian-ssru",
        context_tokens=CONTEXT,
        source_languages=[matches[0][1]],
        target_languages=[matches[0][2]],
        verification=_verify(model, out),
        converted_by={"openvino": openvino.__version__},
    )


def _check_vocabulary(path: Path, rows: int) -> None:
    if path.stat().st_size > MAX_TOKENIZER:
        raise ArtifactRefused(f"{path.name} is too large.")
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise ArtifactRefused(f"{path.name} cannot be read: {str(error)[:200]}") from None
    if not 2 <= pieces.get_piece_size() <= rows or pieces.eos_id() != END:
        raise ConversionFailed(f"{path.name} is not the vocabulary that the model was made with.")


def _verify(model: Student, folder: Path) -> Verification:
    exact, _ = _compare(model, folder, PRECISELY)
    if not exact <= EXACT:
        raise ConversionFailed(f"The graphs' log-probabilities differ by {exact:.3g} in float32.")
    worst, mean = _compare(model, folder, {})
    if not (worst <= TOLERANCE and mean <= MEAN_TOLERANCE):
        raise ConversionFailed(f"The graphs' log-probabilities differ by {worst:.3g} as served.")
    return Verification(
        against="a forward pass of the same weights in NumPy, float32",
        samples=SAMPLES,
        max_abs_error=worst,
        compared=(
            "log-probabilities of the tokens of the model's own translations of random tokens "
            f"(mean difference {mean:.2g}; {exact:.2g} at worst where all is in float32)"
        ),
    )


def _compare(model: Student, folder: Path, settings: dict[str, str]) -> tuple[float, float]:
    """Largest and mean difference over all tokens of all samples."""
    core = openvino.Core()
    reads, writes = (
        core.compile_model(str(folder / f"{name}.xml"), "CPU", settings)
        for name in ("encoder", "decoder")
    )
    random = np.random.default_rng(0)
    differences: list[float] = []
    for length in random.integers(1, LONGEST, SAMPLES, endpoint=True):
        source = [*random.integers(1, len(model.words.values), int(length)).tolist(), END]
        tokens, logprobs = _write(model, reads, writes, source)
        table = marian_reference.logprobs(model, source, tokens[:-1])
        differences += np.abs(table[np.arange(len(tokens)), tokens] - logprobs).tolist()
    return max(differences), float(np.mean(differences))


def _write(model: Student, reads: Any, writes: Any, source: list[int]) -> tuple[list[int], Any]:
    """A greedy translation of one sentence, its end included, and log-probabilities."""
    mask = np.ones((1, len(source)), np.int64)
    state = {"mask": mask}
    read = reads({"tokens": np.array([source], np.int64), "mask": mask})
    state |= {port.any_name: value for port, value in read.items()}
    for at in range(len(model.decoder)):
        state[f"cell_{at}"] = np.zeros((1, model.width), np.float32)
    tokens: list[int] = []
    logprobs: list[float] = []
    while len(tokens) < LONGEST and (not tokens or tokens[-1] != END):
        state["token"] = np.array(tokens[-1:] or [0], np.int64)
        state["place"] = np.array([len(tokens)], np.int64)
        written = {port.any_name: value for port, value in writes(state).items()}
        tokens.append(int(written.pop("next")[0]))
        logprobs.append(float(written.pop("logprob")[0]))
        state |= {name.removeprefix("new_"): value.copy() for name, value in written.items()}
    return tokens, np.array(logprobs)
