"""Norms, rotary embeddings, attention and quantisation on a CPU, compiled by numba.

Each kernel replaces about ten torch operations: one call, one thread, one pass over memory. A query
has a dozen new tokens: for so few, calling the operations takes longer than computing them.
bfloat16 is read and written as its bits, since NumPy lacks it.

Importing this module needs numba. `qwen3_core.model.cpu_kernels` decides whether it is used.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from numba.extending import overload
from torch import Tensor

from qwen3_core.model import attention, int8
from qwen3_core.model.attention import Segment
from qwen3_core.model.buffers import Buffers

BITS, HALF, ODD = np.uint32(16), np.uint32(0x7FFF), np.uint32(1)

SHORT_SCORES = 1024
"""Scores per head (queries x visible keys) up to which the kernel beats torch: at 504 it takes half
the time, at 1,024 the same."""

LARGEST, SMALLEST = np.float32(int8.LARGEST), np.float32(int8.SMALLEST)
ZERO = np.int32(int8.ZERO)


def _compiled(function: Any) -> Any:
    """Compile at the first call; sums may be reordered, but NaN and infinity are preserved."""
    settings: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract", "nsz"},
    }
    try:
        return njit(cache=True, **settings)(function)
    except RuntimeError:  # no writable cache folder: each process compiles for itself
        return njit(**settings)(function)


@_compiled
def _nearest(bits: Any) -> Any:
    """The bits of the bfloat16 nearest to a float32, ties to even."""
    return (bits + HALF + ((bits >> BITS) & ODD)) >> BITS


def _read(row: Any, into: Any) -> None:
    """Copy a row of float32 or of bfloat16 bits into float32."""


@overload(_read, inline="always")
def _read_of_dtype(row: Any, into: Any) -> Any:  # noqa: ARG001
    if row.dtype.name == "float32":

        def read(row: Any, into: Any) -> None:
            for j in range(len(row)):
                into[j] = row[j]
    else:

        def read(row: Any, into: Any) -> None:
            bits = into.view(np.uint32)
            for j in range(len(row)):
                bits[j] = np.uint32(row[j]) << BITS

    return read


def _write(row: Any, out: Any) -> None:
    """Copy a row of float32 into float32, or round it to bfloat16 bits, to nearest even."""


@overload(_write, inline="always")
def _write_of_dtype(row: Any, out: Any) -> Any:  # noqa: ARG001
    if out.dtype.name == "float32":

        def write(row: Any, out: Any) -> None:
            for j in range(len(row)):
                out[j] = row[j]
    else:

        def write(row: Any, out: Any) -> None:
            bits = row.view(np.uint32)
            for j in range(len(row)):
                out[j] = np.uint16(_nearest(bits[j]))

    return write


def _round(row: Any, like: Any) -> None:
    """Round a row of float32 to the precision of `like`: torch rounds scores and softmax."""


@overload(_round, inline="always")
def _round_as(row: Any, like: Any) -> Any:  # noqa: ARG001
    if like.dtype.name == "float32":

        def keep(row: Any, like: Any) -> None:
            pass

        return keep

    def round_to_bits(row: Any, like: Any) -> None:  # noqa: ARG001
        bits = row.view(np.uint32)
        for j in range(len(row)):
            bits[j] = _nearest(bits[j]) << BITS

    return round_to_bits


@_compiled
def _norm(x: Any, weight: Any, epsilon: Any, out: Any) -> None:
    rows, width = x.shape
    scaled = np.empty(width, np.float32)
    for i in range(rows):
        squares = np.float32(0)
        for j in range(width):
            squares += x[i, j] * x[i, j]
        scale = np.float32(1) / np.sqrt(squares / np.float32(width) + np.float32(epsilon))
        for j in range(width):
            scaled[j] = x[i, j] * scale * weight[j]
        _write(scaled, out[i])


@_compiled
def _rotate(
    qkv: Any,
    weight: Any,
    epsilon: Any,
    cos: Any,
    sin: Any,
    first: Any,
    query: Any,
    keys: Any,
    values: Any,
) -> None:
    rows, _, size = qkv.shape
    heads, _, group, _ = query.shape
    half = size // 2
    x, rotated = np.empty(size, np.float32), np.empty(size, np.float32)
    queries = heads * group
    for i in range(rows):
        for head in range(queries + heads):
            _read(qkv[i, head], x)
            squares = np.float32(0)
            for j in range(size):
                squares += x[j] * x[j]
            scale = np.float32(1) / np.sqrt(squares / np.float32(size) + np.float32(epsilon))
            for j in range(size):
                x[j] *= scale * weight[head, j]
            for j in range(half):
                rotated[j] = x[j] * cos[i, j] - x[half + j] * sin[i, j]
            for j in range(half):
                rotated[half + j] = x[half + j] * cos[i, j] + x[j] * sin[i, j]
            if head < queries:
                _write(rotated, query[head // group, first + i, head % group])
            else:
                _write(rotated, keys[head - queries, first + i])
        for head in range(heads):
            _read(qkv[i, queries + heads + head], x)
            _write(x, values[first + i, head])


@_compiled
def _attend(queries: Any, pieces: Any, query: Any, keys: Any, values: Any, out: Any) -> None:
    heads, _, group, size = query.shape
    longest = 0
    for n in range(len(pieces)):
        longest = max(longest, (pieces[n, :, 1] - pieces[n, :, 0]).sum())
    scores = np.empty(longest, np.float32)
    visible_keys = np.empty((longest, size), np.float32)
    visible_values = np.empty((longest, size), np.float32)
    q, mixed = np.empty(size, np.float32), np.empty(size, np.float32)
    for head in range(heads):
        for n in range(len(pieces)):
            total = 0
            for piece in range(pieces.shape[1]):
                for row in range(pieces[n, piece, 0], pieces[n, piece, 1]):
                    _read(keys[head, row], visible_keys[total])
                    _read(values[row, head], visible_values[total])
                    total += 1
            for i in range(queries[n, 0], queries[n, 1]):
                visible = total - (queries[n, 1] - 1 - i)
                for g in range(group):
                    _read(query[head, i, g], q)
                    largest = np.float32(-np.inf)
                    for k in range(visible):
                        score = np.float32(0)
                        for j in range(size):
                            score += q[j] * visible_keys[k, j]
                        scores[k] = score
                    _round(scores[:visible], out)
                    for k in range(visible):
                        largest = max(largest, scores[k])
                    weights = np.float32(0)
                    for k in range(visible):
                        scores[k] = np.exp(scores[k] - largest)
                        weights += scores[k]
                    for k in range(visible):
                        scores[k] /= weights
                    _round(scores[:visible], out)
                    mixed[:] = np.float32(0)
                    for k in range(visible):
                        for j in range(size):
                            mixed[j] += scores[k] * visible_values[k, j]
                    _write(mixed, out[i, head, g])


@_compiled
def _quantize(x: Any, values: Any, scales: Any) -> None:
    rows, width = x.shape
    row = np.empty(width, np.float32)
    for i in range(rows):
        _read(x[i], row)
        largest, is_nan = np.float32(0), False
        for j in range(width):
            largest = max(largest, abs(row[j]))
            is_nan |= row[j] != row[j]
        scale = np.float32(np.nan) if is_nan else max(largest / LARGEST, SMALLEST)
        scales[i, 0] = scale
        for j in range(width):
            values[i, j] = np.uint8(np.int32(np.rint(row[j] / scale)) + ZERO)


def _array(x: Tensor) -> Any:
    """A tensor as an array that shares its memory: bfloat16 as its bits."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def norm(x: Tensor, weight: Tensor, epsilon: float, out: Tensor) -> None:
    """Root mean square norm of rows.

    Args:
        x: (n, width) float32.
        weight: (width,) float32.
        epsilon: Added to the mean square.
        out: (n, width) float32 or bfloat16.
    """
    _norm(x.numpy(), weight.numpy(), epsilon, _array(out))


def rotate(
    qkv: Tensor,
    weight: Tensor,
    epsilon: float,
    cos: Tensor,
    sin: Tensor,
    first: int,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
) -> None:
    """Norm and rotary embedding of query and key heads; value heads are copied.

    Tensors with no dtype given below are float32 or bfloat16; the rest are float32.

    Args:
        qkv: (n, query heads + 2 * kv_heads, head_dim), the merged projection's output.
        weight: (query heads + kv_heads, head_dim) float32, of the norms.
        epsilon: Added to the mean square.
        cos: (n, head_dim / 2) float32.
        sin: (n, head_dim / 2) float32.
        first: The first row to write in the following; n rows are written.
        query: (kv_heads, T, G, head_dim).
        keys: (kv_heads, S, head_dim).
        values: (S, kv_heads, head_dim).
    """
    arrays = (_array(x) for x in (query, keys, values))
    _rotate(_array(qkv), weight.numpy(), epsilon, cos.numpy(), sin.numpy(), first, *arrays)


class Attention:
    """Causal attention of short segments; the others go to another implementation.

    See `qwen3_core.model.attention.Attention`.
    """

    def __init__(
        self, segments: Sequence[Segment], others: Callable[[list[Segment]], attention.Attention]
    ) -> None:
        """Split the segments into short ones and the others.

        Args:
            segments: The pack's segments.
            others: Creates the implementation for the segments that are not short.
        """
        short = [segment for segment in segments if is_short(segment)]
        rest = [segment for segment in segments if not is_short(segment)]
        self._others = others(rest) if rest else None
        self._queries = np.array([(s.queries.start, s.queries.stop) for s in short])
        pieces = [(*segment.prefix, segment.keys) for segment in short]
        most = max(map(len, pieces), default=0)
        self._pieces = np.array(
            [[(p.start, p.stop) for p in row] + [(0, 0)] * (most - len(row)) for row in pieces]
        )

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, buffers: Buffers
    ) -> None:
        """See `qwen3_core.model.attention.Attention`."""
        if self._others is not None:
            self._others(query, keys, values, out, buffers)
        if len(self._queries):
            arrays = map(_array, (query, keys, values.transpose(0, 1), out))
            _attend(self._queries, self._pieces, *arrays)


def is_short(segment: Segment) -> bool:
    """Whether the kernel computes a segment.

    The choice depends on the text and its prefix alone, not on how much of the prefix is cached,
    nor on other texts in the pack: see `qwen3_core.model.attention.FusedAttention`.
    """
    own = segment.keys.stop - segment.keys.start
    total = own + sum(piece.stop - piece.start for piece in segment.prefix)
    return int((own if segment.has_result else total) * total) <= SHORT_SCORES


def quantize(x: Tensor, values: Tensor, scales: Tensor) -> None:
    """Quantise rows; see `qwen3_core.model.int8.Quantized`.

    Args:
        x: (n, width) float32 or bfloat16.
        values: (n, width) uint8, written.
        scales: (n, 1) float32, written.
    """
    _quantize(_array(x), values.numpy(), scales.numpy())
