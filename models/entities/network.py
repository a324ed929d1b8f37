"""The encoder with small additions to its weights that are trained, in torch.

Hu et al. 2021 (LoRA): a layer's weight W is served as W + up · down, of rank ``RANK``; everything
else of the encoder stays as it came.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from openmaas.registry.importers.encoder_weights import Encoder

RANK = 8
FROZEN = 2  # layers at the bottom that nothing is added to
ADAPTED = ("query", "key", "value", "attended", "up", "down")


class Tagger(nn.Module):
    """Token ids and mask [batch, tokens] → logits [batch, tokens, labels]."""

    def __init__(self, encoder: Encoder, labels: int) -> None:
        super().__init__()
        self._encoder = encoder
        self._words = torch.tensor(encoder.words)
        assert encoder.types is not None
        self._places = torch.tensor(encoder.positions + encoder.types[0])
        self._norm = [torch.tensor(one) for one in encoder.embedding_norm]
        self._layers = [
            {name: [torch.tensor(one) for one in pair] for name, pair in layer.items()}
            for layer in encoder.layers
        ]
        self.adapters = nn.ParameterDict()
        for at, layer in enumerate(encoder.layers):
            for name in ADAPTED if at >= FROZEN else ():
                out, given = layer[name][0].shape
                self.adapters[f"{at}_{name}_down"] = nn.Parameter(
                    torch.randn(RANK, given) / given**0.5
                )
                self.adapters[f"{at}_{name}_up"] = nn.Parameter(torch.zeros(out, RANK))
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(encoder.width, labels)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self._words[ids] + self._places[: ids.shape[1]]
        hidden = self._normed(hidden, self._norm)
        seen = mask[:, None, None, :].bool()
        for at, layer in enumerate(self._layers):
            hidden = self._layer(at, layer, hidden, seen)
        logits: torch.Tensor = self.head(self.dropout(hidden))
        return logits

    def _layer(
        self, at: int, layer: dict[str, list[torch.Tensor]], hidden: torch.Tensor,
        seen: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        batch, tokens, width = hidden.shape
        heads = self._encoder.heads
        query, key, value = (
            self._dense(at, name, layer, hidden)
            .view(batch, tokens, heads, width // heads)
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        attended = functional.scaled_dot_product_attention(query, key, value, seen)
        merged = attended.transpose(1, 2).reshape(batch, tokens, width)
        hidden = self._normed(
            hidden + self._dense(at, "attended", layer, merged), layer["attention_norm"]
        )
        inner = functional.gelu(self._dense(at, "up", layer, hidden))
        return self._normed(hidden + self._dense(at, "down", layer, inner), layer["output_norm"])

    def _dense(
        self, at: int, name: str, layer: dict[str, list[torch.Tensor]], inputs: torch.Tensor
    ) -> torch.Tensor:
        result = functional.linear(inputs, *layer[name])
        if at < FROZEN:
            return result
        down, up = self.adapters[f"{at}_{name}_down"], self.adapters[f"{at}_{name}_up"]
        return result + functional.linear(functional.linear(self.dropout(inputs), down), up)

    def _normed(self, inputs: torch.Tensor, pair: list[torch.Tensor]) -> torch.Tensor:
        return functional.layer_norm(inputs, inputs.shape[-1:], *pair, self._encoder.epsilon)

    def tensors(self) -> dict[str, NDArray[np.float16]]:
        """What was trained, by the names that the importer knows, in half precision."""
        found = {
            "head.0.weight": self.head.weight,
            "head.0.bias": self.head.bias,
            **{f"adapter.{name.replace('_', '.')}": one for name, one in self.adapters.items()},
        }
        return {name: one.detach().numpy().astype(np.float16) for name, one in found.items()}
