"""The packed forward pass: the last hidden state of every sequence, and nothing that is not needed.

Both model families are the same causal Qwen3 whose answer sits at the last token. This module
runs that model's own layers over packs (`qwen3_core.packing`): no padding, shared prefixes computed
once, no logits, and in the last layer no queries, attention output or MLP but for the last tokens.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3_core.attention import KeysValues, last_token_attention, packed_attention
from qwen3_core.packing import Ids, Pack, TokenSequence, plan

if TYPE_CHECKING:
    from transformers import Qwen3Model

PREFIX_CACHE_TOKENS = 1024
"""Tokens of prefixes whose keys and values are kept between calls (112 KiB a token at 0.6B)."""

DEFAULT_PACK_TOKENS = {"cpu": 1024, "mps": 2048, "cuda": 8192}
"""Token budget of a pack by device type: large enough to keep the device busy, small enough for
its caches and memory."""


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
    """Computes last hidden states with a loaded Qwen3 model.

    One call runs at a time; other threads wait. Results do not depend on what else is in the call
    beyond rounding (float32: about 1e-6 relative).
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
        self._lock = threading.Lock()
        self._prefixes: OrderedDict[Ids, list[KeysValues]] = OrderedDict()

    @property
    def hidden_size(self) -> int:
        """Length of a hidden state."""
        return int(self.model.config.hidden_size)

    def encode(
        self,
        sequences: Sequence[TokenSequence],
        on_progress: Callable[[int], object] | None = None,
    ) -> np.ndarray:
        """The final hidden state at the last token of each sequence.

        Args:
            sequences: Token sequences; those with an equal prefix share its computation.
            on_progress: Called after each pack with the number of sequences it finished.

        Returns:
            (n, hidden_size) float32, in the order of `sequences`, after the model's final norm.

        Raises:
            FloatingPointError: If a result is not finite; the message names dtype and remedy.
        """
        out = np.empty((len(sequences), self.hidden_size), dtype=np.float32)
        if not sequences:
            return out
        with self._lock, torch.inference_mode():
            # Held until the call ends, whatever the cache evicts meanwhile.
            known = dict(self._prefixes)
            carried: dict[Ids, list[KeysValues]] = {}
            for pack in plan(sequences, self.pack_tokens, known):
                states, laid = self._forward(pack, known | carried)
                out[list(pack.order)] = states.cpu().numpy()
                if on_progress is not None:
                    on_progress(len(pack.order))
                last = pack.branches[-1]
                at_hand = known | carried | laid
                carried = (
                    {last.prefix: at_hand[last.prefix]} if last.continues and last.prefix else {}
                )
                for branch in pack.branches:
                    if branch.prefix:
                        self._remember(branch.prefix, at_hand[branch.prefix])
        if not np.isfinite(out).all():
            dtype = str(self.model.dtype).removeprefix("torch.")
            bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
            msg = (
                f"the model returned NaN or infinity for {len(bad)} of {len(out)} sequences "
                f"(first: {bad[0]}) in {dtype}; use dtype='bfloat16' or 'float32'"
            )
            raise FloatingPointError(msg)
        return out

    def _forward(
        self, pack: Pack, known: Mapping[Ids, list[KeysValues]]
    ) -> tuple[Tensor, dict[Ids, list[KeysValues]]]:
        """Run one pack.

        Returns:
            (n, hidden_size) float32 for the pack's n segments, and for each prefix laid in the pack
            its keys and values in every layer.
        """
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
            visible = {b.prefix: known[b.prefix][index] for b in pack.branches if b.prefix in known}

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
        """Keep the prefixes used last, up to `PREFIX_CACHE_TOKENS` tokens in all."""
        if len(prefix) > PREFIX_CACHE_TOKENS:
            return
        self._prefixes[prefix] = layers
        self._prefixes.move_to_end(prefix)
        while sum(map(len, self._prefixes)) > PREFIX_CACHE_TOKENS:
            self._prefixes.popitem(last=False)
