"""A Qwen3 layer over rows of tokens, with a loaded model's weights and without its allocations.

Matrix products run in the model's dtype or in 8-bit integers; the residual stream, norms and rotary
embeddings in float32, which is both more accurate and, on CPUs, faster than bfloat16. Everything
but attention is row-wise, so it runs in blocks of rows, which bounds memory.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from qwen3_core.model.attention import Attention, head_norms
from qwen3_core.model.buffers import Buffers
from qwen3_core.model.int8 import Int8Linear, Quantized
from qwen3_core.model.linear import projected, swiglu

Rows = Tensor | Quantized
"""Input of a linear layer: the model's dtype, or quantised rows."""

BLOCK_ROWS = 1024
"""Rows computed at a time: the default pack of a CPU, and enough for any device."""

CACHED_ROWS = 128
"""Rows that norms, rotary embeddings and quantisation take at a time on CPUs: few enough for each
step's result to stay in a core's cache for the next. Matrix products are faster on more rows."""


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, out: Tensor | None = None) -> Tensor:
    """Root mean square norm over the last dimension of x, in float32; out may be x."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    return torch.mul(x, scale, out=out).mul_(weight)


def _blocks(rows: slice, step: int) -> Iterator[slice]:
    return (slice(i, min(i + step, rows.stop)) for i in range(rows.start, rows.stop, step))


class Layer:
    """One of a Qwen3 model's decoder layers, for T tokens of any sequences.

    x is the residual stream, (T, hidden) float32; cos and sin are (T, 1, head_dim / 2) float32.
    """

    def __init__(self, module: Any, dtype: torch.dtype, buffers: Buffers) -> None:
        """Wrap transformers' layer.

        Args:
            module: The layer, its Linear modules replaced by `qwen3_core.model.linear.prepack`.
            dtype: Of queries, keys and values.
            buffers: Scratch memory, the same for all layers.
        """
        self._module = module
        self._attention = attention = module.self_attn
        self._dtype = dtype
        self._buffers = buffers
        self._quantized = isinstance(attention.o_proj, Int8Linear)
        self._epsilon = module.input_layernorm.variance_epsilon  # the same in all norms
        self._size = attention.head_dim
        self._heads = attention.config.num_key_value_heads
        self._group = attention.num_key_value_groups
        self._input_norm = module.input_layernorm.weight.detach().float()
        self._step = CACHED_ROWS if self._input_norm.device.type == "cpu" else BLOCK_ROWS
        self._mlp_norm = module.post_attention_layernorm.weight.detach().float()
        self._head_weights = head_norms(attention)

    def project(
        self, x: Tensor, cos: Tensor, sin: Tensor, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values.

        Returns:
            Queries (kv_heads, T, G, head_dim), scaled by 1 / sqrt(head_dim), keys and values, each
            (kv_heads, count, head_dim); rows from T on are not written.
        """
        heads, group, size = self._heads, self._group, self._size
        query = self._buffers.take("query", self._dtype, heads, len(x), group, size)
        keys = self._buffers.take("keys", self._dtype, heads, count, size)
        values = self._buffers.take("values", self._dtype, count, heads, size)
        for block in _blocks(slice(0, len(x)), BLOCK_ROWS):
            normed = self._normed(x[block], self._input_norm)
            self._split(normed, block, cos[block], sin[block], (query, keys, values))
        return query, keys, values.transpose(0, 1)

    def _split(
        self,
        x: Rows,
        block: slice,
        cos: Tensor,
        sin: Tensor,
        into: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Write a block's rows of queries, keys and values; x is their input, normalised."""
        query, keys, values = into
        heads, _, group, size = query.shape
        qkv = projected(self._attention, x)
        qkv = qkv.view(len(qkv), -1, size)
        for rows in _blocks(slice(0, len(qkv)), self._step):
            to = slice(block.start + rows.start, block.start + rows.stop)
            rotated = self._rotated(qkv[rows, :-heads], cos[rows], sin[rows])
            queries = rotated[:, :-heads].view(-1, heads, group, size)
            query[:, to].copy_(queries.transpose(0, 1))
            keys[:, to].copy_(rotated[:, -heads:].transpose(0, 1))
            values[to].copy_(qkv[rows, -heads:])

    def finish(
        self, x: Tensor, query: Tensor, keys: Tensor, values: Tensor, attend: Attention
    ) -> None:
        """Add the output of attention, then that of the MLP, to the residual stream x."""
        attention, mlp = self._attention, self._module.mlp
        heads, count, group, size = query.shape
        attended = self._buffers.take("attended", self._dtype, count, heads, group, size)
        attend(query, keys, values, attended, self._buffers)
        for rows in _blocks(slice(0, count), BLOCK_ROWS):
            block = x[rows]
            self._add(block, attention.o_proj, self._read("attended", attended[rows].flatten(1)))
            normed = self._normed(block, self._mlp_norm)
            self._add(block, mlp.down_proj, self._swiglu(mlp.gate_proj, mlp.up_proj, normed))

    def _swiglu(self, gate: Any, up: Any, x: Rows) -> Rows:
        """SwiGLU of two linear layers, as input of the next one."""
        return self._read("inner", swiglu(gate, up, x))

    def _add(self, x: Tensor, linear: Any, rows: Rows) -> None:
        """Add a linear layer's output to x."""
        x += linear(rows)

    def _read(self, name: str, x: Tensor) -> Rows:
        """Rows of a floating dtype as input of a linear layer."""
        if x.dtype == self._dtype and not self._quantized:
            return x
        found = self._take(name, x.shape)
        for rows in _blocks(slice(0, len(x)), self._step):
            self._write(found[rows], x[rows])
        return found

    def _normed(self, x: Tensor, weight: Tensor) -> Rows:
        """A block of x, normalised, as input of a linear layer."""
        found = self._take("normed", x.shape)
        for rows in _blocks(slice(0, len(x)), self._step):
            exact = self._buffers.take("norm", torch.float32, *x[rows].shape)
            self._write(found[rows], rms_norm(x[rows], weight, self._epsilon, exact))
        return found

    def _take(self, name: str, shape: torch.Size) -> Rows:
        """Memory for the input of a linear layer."""
        if self._quantized:
            return Quantized.take(self._buffers, name, *shape)
        return self._buffers.take(name, self._dtype, *shape)

    def _write(self, found: Rows, x: Tensor) -> None:
        """Round or quantise rows into memory from `_take`."""
        if isinstance(found, Quantized):
            found.copy_(x, self._buffers)
        else:
            found.copy_(x)

    def _rotated(self, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Norm of each head and rotary embedding of (rows, heads, head_dim), in float32."""
        x = heads  # not used afterwards, so it may be overwritten
        if x.dtype != torch.float32:
            x = self._buffers.take("heads", torch.float32, *heads.shape).copy_(heads)
        rms_norm(x, self._head_weights, self._epsilon, x)
        rotated = self._buffers.take("rotated", torch.float32, *x.shape)
        (a, b), (left, right) = x.chunk(2, -1), rotated.chunk(2, -1)
        torch.mul(a, cos, out=left).addcmul_(b, sin, value=-1)
        torch.mul(b, cos, out=right).addcmul_(a, sin)
        return rotated
