"""The packed forward pass: computes only what the last hidden state of every sequence needs.

Both models are the same causal Qwen3, whose result is read at the last token. This module
runs that model's own layers over packs (`qwen3_core.model.packing`): no padding, shared prefixes
computed once, no logits, and in the last layer queries, attention output and MLP for last tokens
only.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from qwen3_core.model import cpu_kernels, cuda
from qwen3_core.model.attention import (
    Attention,
    Segment,
    attention_for,
    last_tokens_of,
    segments_of,
)
from qwen3_core.model.buffers import Buffers, give_back_freed, release_threads
from qwen3_core.model.cascade import KeysValues
from qwen3_core.model.layers import BLOCK_ROWS, Layer, rms_norm
from qwen3_core.model.linear import prepack, rounded
from qwen3_core.model.packing import Line, Pack, W, next_pack
from qwen3_core.tokenizer import Ids

if TYPE_CHECKING:
    from transformers import Qwen3Model

PREFIX_CACHE_TOKENS = 2048
"""Size of the prefix cache in tokens (112 KiB of keys and values a token at 0.6B)."""

MIN_SHARED_TOKENS = 16
"""Tokens that a prefix must share with a cached one to use its keys: shorter matches cost more to
copy than to recompute."""

DEFAULT_PACK_TOKENS = {"cpu": BLOCK_ROWS, "mps": 2048}
"""Token budget of a pack by device type: large enough to keep the device busy, small enough for
its caches and memory. On CUDA it depends on the free memory (`qwen3_core.model.cuda`)."""


class Encoder:
    """Computes last hidden states with a loaded Qwen3 model, pack by pack.

    Not thread-safe: `qwen3_core.engine.engine` calls it from one dedicated thread.

    Results are batch-invariant up to rounding. Between packs, unit vectors (L2 distance) and
    log-odds differ by at most 1e-5 in float32 (log-odds above 1: relative), and by at most 2e-3 and
    1e-2 in bfloat16, where one unit in the last place is 2**-8 of the value. Both are tested on
    CPUs (`tests/core/test_parity.py`).
    """

    def __init__(
        self, model: "Qwen3Model", pack_tokens: int | None = None, *, int8: bool = False
    ) -> None:
        """Wrap a model; on CPUs its Linear modules are replaced (`qwen3_core.model.linear`).

        Args:
            model: The base model (without head) of a `loading.Checkpoint`, on its device, in its
                dtype, in eval mode.
            pack_tokens: Token budget of one forward pass; by default `DEFAULT_PACK_TOKENS`, on CUDA
                `cuda.pack_tokens` of the free memory.
            int8: Whether linear layers run in 8-bit integers (`qwen3_core.model.int8`).

        Raises:
            ValueError: If the budget is below 1.
        """
        self.model = model
        self.device = model.embed_tokens.weight.device
        default = _default_pack_tokens(model)
        if pack_tokens is None:
            pack_tokens = default
        if pack_tokens < 1:
            msg = f"pack_tokens must be at least 1, got {pack_tokens}"
            raise ValueError(msg)
        self.pack_tokens = pack_tokens
        prepack(model, int8=int8)
        self._int8 = int8
        self._buffers = Buffers(self.device)
        self._compiled = cpu_kernels.compiled_for(self.device, model.dtype, int8=int8)
        layer = Layer if self._compiled is None else self._compiled.CompiledLayer
        self._attends = self._compiled is not None and self._compiled.attends(model.dtype)
        self._layers = [layer(module, model.dtype, self._buffers) for module in model.layers]
        self._flash = cuda.FlashForward(model, default) if cuda.usable(model) else None
        self._prefixes: OrderedDict[Ids, list[KeysValues]] = OrderedDict()

    @property
    def dtype(self) -> str:
        """The dtype of its matrix products, e.g. "bfloat16" or "int8"."""
        return "int8" if self._int8 else str(self.model.dtype).removeprefix("torch.")

    @property
    def hidden_size(self) -> int:
        """Length of a hidden state."""
        return int(self.model.config.hidden_size)

    def forget(self) -> None:
        """Empty the prefix cache."""
        self._prefixes.clear()

    def free_memory(self) -> None:
        """Empty the prefix cache and the scratch memory, and return freed memory to the system."""
        self.forget()
        self._buffers.clear()
        give_back_freed()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def next_pack(self, lines: Iterable[Line[W]]) -> Pack[W]:
        """Take work for one forward pass; see `packing.next_pack`."""
        return next_pack(lines, self._cached)

    def _cached(self, prefix: Ids) -> int:
        """How many leading tokens of a prefix are in the prefix cache."""
        if prefix in self._prefixes:
            return len(prefix)
        most = max((_equal(prefix, other) for other in self._prefixes), default=0)
        return most if most >= MIN_SHARED_TOKENS else 0

    def _cache_entry(self, prefix: Ids, count: int) -> list[KeysValues]:
        """Cached keys and values of a prefix's first `count` tokens, a number from `_cached`."""
        if prefix in self._prefixes:
            return self._prefixes[prefix]
        for other, layers in self._prefixes.items():
            if other[:count] == prefix[:count]:
                return [(keys[:, :count], values[:, :count]) for keys, values in layers]
        raise KeyError(prefix)

    @torch.inference_mode()
    def run(self, pack: Pack[Any]) -> np.ndarray:
        """The final hidden state at the last token of each sequence of a pack.

        Args:
            pack: The latest pack made by `next_pack`.

        Returns:
            (n, hidden_size) float32, in the order of `pack.members`, after the model's final norm.
            A row may be NaN or infinite where the model overflows in its dtype.
        """
        branches = [branch for branch in pack.branches if branch.prefix]
        cached = {b.prefix: self._cache_entry(b.prefix, b.cached) for b in branches if b.cached}
        states, new = (self._flash or self._forward)(pack, cached)
        if len(pack.ids) > self.pack_tokens:  # one long sequence: release its memory
            self._buffers.clear()
        for prefix in (branch.prefix for branch in branches):
            self._remember(prefix, _joined(cached.get(prefix), new.get(prefix)))
        result: np.ndarray = states.cpu().numpy()
        release_threads()
        return result

    def _forward(
        self, pack: Pack[Any], cached: Mapping[Ids, list[KeysValues]]
    ) -> tuple[Tensor, dict[Ids, list[KeysValues]]]:
        """The pack's last hidden states, and the new keys and values of its prefixes."""
        model = self.model
        ids = self._rows(pack.ids)
        positions = self._rows(pack.positions)[None]
        last_rows = self._rows(pack.last_rows)
        x = model.embed_tokens(ids).float()
        # Both halves of a head have the same angles: transformers lists them twice.
        angles = model.rotary_emb(x[None], positions)
        cos, sin = (t[0, :, None, : t.shape[-1] // 2].contiguous() for t in angles)

        cached_rows: dict[Ids, slice] = {}  # of the cached keys, after the pack's own
        stop = len(ids)
        for branch in pack.branches:
            if branch.cached:
                cached_rows[branch.prefix] = slice(stop, stop := stop + branch.cached)
        new_rows = {b.prefix: b.prefix_rows for b in pack.branches if b.cached < len(b.prefix)}
        captured: dict[Ids, list[KeysValues]] = {prefix: [] for prefix in new_rows}
        segments = segments_of(pack, cached_rows)
        attention = self._attention(segments)
        last = len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            query, keys, values = layer.project(x, cos, sin, stop)
            for prefix, rows in new_rows.items():
                captured[prefix].append((keys[:, rows].clone(), values[:, rows].clone()))
            for prefix, rows in cached_rows.items():
                keys[:, rows], values[:, rows] = cached[prefix][index]
            if index == last:
                attention = self._attention(last_tokens_of(segments))
                query, x = query[:, last_rows], x[last_rows]
            layer.finish(x, query, keys, values, attention)
        norm, x = model.norm, x[: len(pack.last_rows)]
        return rms_norm(x, norm.weight.float(), norm.variance_epsilon), captured

    def _rows(self, numbers: list[int]) -> Tensor:
        """One number per row, padded with zeros to few different lengths (`linear.rounded`).

        Padding rows belong to no segment, so they affect no result.
        """
        more = rounded(len(numbers)) - len(numbers)
        return torch.tensor([*numbers, *[0] * more], device=self.device)

    def _attention(self, segments: list[Segment]) -> Attention:
        if self._compiled is None or not self._attends:
            return attention_for(segments, device=self.device, dtype=self.model.dtype)
        attention: Attention = self._compiled.Attention(segments)
        return attention

    def _remember(self, prefix: Ids, layers: list[KeysValues]) -> None:
        """Cache a prefix; evict the least recently used beyond `PREFIX_CACHE_TOKENS` tokens."""
        self._prefixes[prefix] = layers
        self._prefixes.move_to_end(prefix)
        while len(self._prefixes) > 1 and sum(map(len, self._prefixes)) > PREFIX_CACHE_TOKENS:
            self._prefixes.popitem(last=False)


def _default_pack_tokens(model: Any) -> int:
    device = model.embed_tokens.weight.device
    if device.type == "cuda":
        return cuda.pack_tokens(cuda.available_memory(device), model.config, model.dtype)
    return DEFAULT_PACK_TOKENS.get(device.type, DEFAULT_PACK_TOKENS["cpu"])


def _equal(one: Ids, other: Ids) -> int:
    """The number of leading tokens that two prefixes share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _joined(cached: list[KeysValues] | None, new: list[KeysValues] | None) -> list[KeysValues]:
    """A prefix's keys and values, layer by layer, from its cached and its new tokens."""
    if not (cached and new):
        return cached or new or []
    return [
        (torch.cat((k1, k2), 1), torch.cat((v1, v2), 1))
        for (k1, v1), (k2, v2) in zip(cached, new, strict=True)
    ]
