"""The packed forward pass: the last hidden state of every sequence, and nothing that is not needed.

Both model families are the same causal Qwen3 whose answer sits at the last token. This module
runs that model's own layers over packs (`qwen3_core.packing`): no padding, shared prefixes computed
once, no logits, and in the last layer no queries, attention output or MLP but for the last tokens.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_core.attention import KeysValues, last_token_attention, packed_attention
from qwen3_core.packing import Ids, Line, Pack, W, next_pack

if TYPE_CHECKING:
    from transformers import Qwen3Model

PREFIX_CACHE_TOKENS = 2048
"""Tokens of prefixes whose keys and values are kept between calls (112 KiB a token at 0.6B)."""

DEFAULT_PACK_TOKENS = {"cpu": 1024, "mps": 2048, "cuda": 8192}
"""Token budget of a pack by device type: large enough to keep the device busy, small enough for
its caches and memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a forward pass says that memory could not be had."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The CPU's allocator, and some libraries under CUDA and MPS, raise a plain RuntimeError.
    said = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in said or "not enough memory" in said or "out of memory" in said
    )


def _rms_norm(norm: Any, x: Tensor) -> Tensor:
    """A Qwen3RMSNorm module's function, fused; `norm.weight` broadcasts over the last dimension."""
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (1, heads, T, head_dim); cos and sin are (1, 1, T, head_dim)."""
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + rotated * sin


def _heads(projected: Tensor, attention: Any) -> Tensor:
    """(T, heads * head_dim) as (T, heads, head_dim)."""
    return projected.view(len(projected), -1, attention.head_dim)


class Encoder:
    """Computes last hidden states with a loaded Qwen3 model, pack by pack.

    Not for two threads at once: `qwen3_core.engine` gives it a thread of its own.

    A result does not depend on what else is in its pack beyond rounding. The same text alone, in a
    batch or among other callers' work differs, as the distance of vectors of length 1 and as the
    difference of log-odds, by at most 1e-5 each in float32 (log-odds above 1: of the largest), and
    by at most 2e-3 and 1e-2 in bfloat16, where a last bit that falls the other way is 2**-8 of a
    value. Both are tested on CPUs (`tests/core/test_parity.py`).
    """

    def __init__(self, model: "Qwen3Model", pack_tokens: int | None = None) -> None:
        """Wrap a model.

        Args:
            model: The base model (without head), on its device, in its dtype, in eval mode.
            pack_tokens: Token budget of one forward pass; by default `DEFAULT_PACK_TOKENS`.

        Raises:
            ValueError: If the budget is below 1 or the model uses sliding-window attention.
        """
        if any(
            kind != "full_attention" for kind in getattr(model.config, "layer_types", None) or ()
        ):
            msg = "the model uses sliding-window attention; no published Qwen3 retrieval model does"
            raise ValueError(msg)
        self.model = model
        self.device = model.embed_tokens.weight.device
        if pack_tokens is None:
            pack_tokens = DEFAULT_PACK_TOKENS.get(self.device.type, 1024)
        if pack_tokens < 1:
            msg = f"pack_tokens must be at least 1, got {pack_tokens}"
            raise ValueError(msg)
        self.pack_tokens = pack_tokens
        self._prefixes: OrderedDict[Ids, list[KeysValues]] = OrderedDict()

    @property
    def dtype(self) -> str:
        """What it computes in, e.g. "bfloat16"."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def hidden_size(self) -> int:
        """Length of a hidden state."""
        return int(self.model.config.hidden_size)

    def forget(self) -> None:
        """Drop the keys and values of prefixes that are kept between packs, to free memory."""
        self._prefixes.clear()

    def free_memory(self) -> None:
        """Give back what can be done without: kept prefixes, and the allocator's reserve."""
        self.forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def next_pack(self, lines: Iterable[Line[W]]) -> Pack[W]:
        """Take work for one forward pass; see `packing.next_pack`."""
        return next_pack(lines, self._prefixes)

    @torch.inference_mode()
    def run(self, pack: Pack[Any]) -> np.ndarray:
        """The final hidden state at the last token of each sequence of a pack.

        Args:
            pack: The latest pack made by `next_pack`.

        Returns:
            (n, hidden_size) float32, in the order of `pack.members`, after the model's final norm.
            A row may be NaN or infinite where the model overflows in its dtype.
        """
        used = [branch.prefix for branch in pack.branches if branch.prefix]
        known = {prefix: self._prefixes[prefix] for prefix in used if prefix in self._prefixes}
        states, laid = self._forward(pack, known)
        for prefix in used:
            self._remember(prefix, (known | laid)[prefix])
        result: np.ndarray = states.cpu().numpy()
        return result

    def _forward(
        self, pack: Pack[Any], known: Mapping[Ids, list[KeysValues]]
    ) -> tuple[Tensor, dict[Ids, list[KeysValues]]]:
        """The pack's states as a tensor, and the keys and values of the prefixes laid in it."""
        model = self.model
        ids = torch.tensor(pack.ids, device=self.device)
        positions = torch.tensor([pack.positions], device=self.device)
        last_rows = torch.tensor(pack.last_rows, device=self.device)
        x = model.embed_tokens(ids)
        cos, sin = (t[:, None] for t in model.rotary_emb(x[None], positions))

        laid = [b for b in pack.branches if b.prefix_rows.stop > b.prefix_rows.start]
        captured: dict[Ids, list[KeysValues]] = {branch.prefix: [] for branch in laid}
        layers: list[Any] = list(model.layers)
        for index, layer in enumerate(layers):
            attention = layer.self_attn

            normed = _rms_norm(layer.input_layernorm, x)
            keys = _rms_norm(attention.k_norm, _heads(attention.k_proj(normed), attention))
            keys = _rotate(keys.transpose(0, 1)[None], cos, sin)
            values = _heads(attention.v_proj(normed), attention).transpose(0, 1)[None]
            for branch in laid:
                rows = branch.prefix_rows
                pair = (keys[:, :, rows].contiguous(), values[:, :, rows].contiguous())
                captured[branch.prefix].append(pair)
            visible = {prefix: pairs[index] for prefix, pairs in known.items()}

            attend = packed_attention
            if index == len(layers) - 1:
                attend = last_token_attention
                normed, x = normed[last_rows], x[last_rows]
                cos, sin = cos[:, :, last_rows], sin[:, :, last_rows]
            query = _rms_norm(attention.q_norm, _heads(attention.q_proj(normed), attention))
            query = _rotate(query.transpose(0, 1)[None], cos, sin)
            attended = attend(query, keys, values, pack, visible, attention.scaling)
            x = x + attention.o_proj(attended[0].transpose(0, 1).reshape(len(x), -1))
            x = x + layer.mlp(_rms_norm(layer.post_attention_layernorm, x))
        x, weight = x.float(), model.norm.weight.float()
        return F.rms_norm(x, x.shape[-1:], weight, model.norm.variance_epsilon), captured

    def _remember(self, prefix: Ids, layers: list[KeysValues]) -> None:
        """Keep the prefixes used last, up to `PREFIX_CACHE_TOKENS` tokens, and always the last."""
        self._prefixes[prefix] = layers
        self._prefixes.move_to_end(prefix)
        while len(self._prefixes) > 1 and sum(map(len, self._prefixes)) > PREFIX_CACHE_TOKENS:
            self._prefixes.popitem(last=False)
