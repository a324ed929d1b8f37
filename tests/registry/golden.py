"""What transformers says of the small models: ``python -m tests.registry.golden`` writes it anew.

    pip install transformers==5.23.0 torch==2.13.0

The tests need neither: they compare with the numbers that lie beside this file.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.registry.small_models import (
    CLASSIFIERS,
    DECODERS,
    ENCODERS,
    TAGGERS,
    classifier_folder,
    decoder_folder,
    encoder_folder,
    tagger_folder,
)

FILE = Path(__file__).with_name("golden.json")
TOKENS = [257, 72, 101, 256, 111, 44, 32, 119, 111, 114, 108, 100, 33, 10, 256, 101]
IDS = [[2, 4, 5, 6, 7, 8, 9, 3], [2, 10, 6, 11, 3, 0, 0, 0]]
MASK = [[1] * 8, [1] * 5 + [0] * 3]
TYPES = [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0, 0]]


def main() -> None:
    import torch
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        for family in DECODERS:
            folder = decoder_folder(Path(place, family), family)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            logs = torch.log_softmax(model(torch.tensor([TOKENS])).logits[0].double(), -1)
            found[family] = [float(logs[at, token]) for at, token in enumerate(TOKENS[1:])]
        for family in ENCODERS:
            folder = encoder_folder(Path(place, family), family)
            model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
            mask = torch.tensor(MASK)
            state = model(input_ids=torch.tensor(IDS), attention_mask=mask).last_hidden_state
            total = (state * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            found[family] = (total / total.norm(dim=1, keepdim=True)).tolist()
        for name, labels in {"classifier": ("a", "b", "c"), "cross-encoder": ("a",)}.items():
            for family in CLASSIFIERS:
                folder = classifier_folder(Path(place, f"{family}-{name}"), family, *labels)
                scorer = AutoModelForSequenceClassification.from_pretrained(
                    folder, dtype=torch.float32
                ).eval()
                given = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK)}
                if name == "cross-encoder" and family == "bert":
                    given["token_type_ids"] = torch.tensor(TYPES)
                found[f"{family}-{name}"] = scorer(**given).logits.tolist()
        for family in TAGGERS:
            folder = tagger_folder(Path(place, f"{family}-tagger"), family, "O", "B-P", "I-P")
            tagger = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32)
            given = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK)}
            found[f"{family}-tagger"] = tagger.eval()(**given).logits.tolist()
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
