"""A Qwen3 layer over rows of tokens, with a loaded model's weights and without its allocations.

Products run in the model's dtype or in 8-bit integers; the sums between layers, norms and rotary
embeddings in float32, which is both more accurate and, on CPUs, faster than bfloat16. Row by row
except for attention, so that blocks of rows bound the memory.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from qwen3_core.attention import Attention
from qwen3_core.buffers import Buffers
from qwen3_core.int8 import Int8Linear, Quantized
from qwen3_core.linear import gated

Rows = Tensor | Quantized
"""What linear maps read: rows in the model's dtype or, where that is what they are, in integers."""

BLOCK_ROWS = 1024
"""Rows computed at a time: as many as a CPU's pack has by default, and enough for any device."""


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, out: Tensor | None = None) -> Tensor:
    """Root mean square norm over the last dimension of x, in float32; out may be x."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    return torch.mul(x, scale, out=out).mul_(weight)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(i, min(i + BLOCK_ROWS, count)) for i in range(0, count, BLOCK_ROWS))


class Layer:
    """One of a Qwen3 model's decoder layers, for T tokens of any sequences.

    x is (T, hidden) float32, what the layers add to; cos and sin are (T, 1, head_dim / 2) float32.
    """

    def __init__(self, module: Any, dtype: torch.dtype, buffers: Buffers) -> None:
        self._module = module
        self._attention = module.self_attn
        self._dtype = dtype
        self._buffers = buffers
        self._quantized = isinstance(self._attention.q_proj, Int8Linear)

    def normed(self, x: Tensor) -> Rows:
        """What the attention's projections read: (T, hidden)."""
        out = self._take("normed", *x.shape)
        for rows in _blocks(len(x)):
            self._norm(self._module.input_layernorm, x[rows], out[rows])
        return out

    def keys_values(
        self, normed: Rows, cos: Tensor, sin: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """Keys and values, each (kv_heads, count, head_dim); rows from T on are not written."""
        attention = self._attention
        size = attention.head_dim
        heads = attention.k_proj.out_features // size
        keys = self._buffers.take("keys", self._dtype, heads, count, size)
        values = self._buffers.take("values", self._dtype, count, heads, size)
        for rows in _blocks(len(normed)):
            self._rotate(
                attention.k_proj(normed[rows]).view(-1, heads, size),
                attention.k_norm.weight.float(),
                cos[rows],
                sin[rows],
                keys[:, rows].transpose(0, 1),
            )
            values[rows].flatten(1).copy_(attention.v_proj(normed[rows]))
        return keys, values.transpose(0, 1)

    def attend(
        self,
        x: Tensor,
        normed: Rows,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        attend: Attention,
    ) -> None:
        """Add the attention's output to x, for queries made of `normed`."""
        attention = self._attention
        size, heads = attention.head_dim, len(keys)
        group = attention.q_proj.out_features // size // heads
        query = self._buffers.take("query", self._dtype, heads, len(x), group, size)
        weight = attention.q_norm.weight.float() * attention.scaling
        for rows in _blocks(len(x)):
            self._rotate(
                attention.q_proj(normed[rows]).view(-1, heads * group, size),
                weight,
                cos[rows],
                sin[rows],
                query[:, rows].transpose(0, 1),
            )
        attended = self._buffers.take("attended", self._dtype, len(x), heads, group, size)
        attend(query, keys, values, attended, self._buffers)
        for rows in _blocks(len(x)):
            x[rows] += attention.o_proj(self._read("attended", attended[rows].flatten(1)))

    def transform(self, x: Tensor) -> None:
        """Add the feed-forward part's output to x."""
        mlp = self._module.mlp
        for rows in _blocks(len(x)):
            normed = self._take("normed", *x[rows].shape)
            self._norm(self._module.post_attention_layernorm, x[rows], normed)
            inner = gated(mlp.gate_proj, mlp.up_proj, normed)
            x[rows] += mlp.down_proj(self._read("inner", inner))

    def _take(self, name: str, rows: int, width: int) -> Rows:
        """Memory for what linear maps read."""
        if self._quantized:
            return Quantized.take(self._buffers, name, rows, width)
        return self._buffers.take(name, self._dtype, rows, width)

    def _read(self, name: str, x: Tensor) -> Rows:
        """Rows of the model's dtype, or what maps made of them, as linear maps read them."""
        if self._quantized:
            return Quantized.take(self._buffers, name, *x.shape).copy_(x, self._buffers)
        return x

    def _norm(self, norm: Any, x: Tensor, out: Rows) -> None:
        """A norm module's function of a block of x, written to `out`."""
        if isinstance(out, Tensor) and out.dtype == torch.float32:
            result = out
        else:
            result = self._buffers.take("norm", torch.float32, *x.shape)
        rms_norm(x, norm.weight.float(), norm.variance_epsilon, result)
        if isinstance(out, Quantized):
            out.copy_(result, self._buffers)
        elif out is not result:
            out.copy_(result)

    def _rotate(
        self, projected: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, out: Tensor
    ) -> None:
        """Norm of each head and rotary embedding of (rows, heads, head_dim), written to `out`."""
        x = projected  # which nobody else has
        if x.dtype != torch.float32:
            x = self._buffers.take("heads", torch.float32, *projected.shape).copy_(projected)
        rms_norm(x, weight, self._attention.q_norm.variance_epsilon, x)
        rotated = self._buffers.take("rotated", torch.float32, *x.shape)
        (a, b), (left, right) = x.chunk(2, -1), rotated.chunk(2, -1)
        torch.mul(a, cos, out=left).addcmul_(b, sin, value=-1)
        torch.mul(b, cos, out=right).addcmul_(a, sin)
        out.copy_(rotated.view(len(x), *out.shape[1:]))
