"""Layers and attention on numba's kernels; `qwen3_core.model.numba_kernels` has the kernels.

Importing this module needs numba. `qwen3_core.model.cpu_kernels` decides whether it is used.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwen3_core.model import numba_kernels as kernels
from qwen3_core.model.attention import Segment, has_amx
from qwen3_core.model.buffers import Buffers
from qwen3_core.model.few_rows import few_rows
from qwen3_core.model.int8 import Int8Linear, Quantized
from qwen3_core.model.layers import Layer, Rows
from qwen3_core.model.linear import MERGED, PrepackedLinear

DTYPES = {torch.float32: kernels.FLOAT, torch.bfloat16: kernels.BITS, torch.uint8: kernels.BYTE}
"""How the kernels see torch's dtypes."""


def compile_kernels(dtype: torch.dtype, *, int8: bool) -> None:
    """Compile all kernels that a model needs.

    Args:
        dtype: Of queries, keys and values, float32 or bfloat16.
        int8: Whether linear layers run in 8-bit integers.
    """
    heads = DTYPES[dtype]
    rows, outputs = (kernels.BYTE, kernels.FLOAT) if int8 else (heads, heads)
    kernels.norm(rows)
    kernels.rotate(outputs, heads)
    kernels.swiglu(outputs, rows)
    kernels.add(outputs)
    if int8:
        kernels.quantize(heads)
        kernels.quantize(kernels.FLOAT)
    if kernels.can_multiply(rows):
        kernels.product(rows, outputs)
    if attends(dtype):
        kernels.attention(heads)


def attends(dtype: torch.dtype) -> bool:
    """Whether `Attention` is available on this CPU, and faster than torch's."""
    is_slower = (dtype == torch.bfloat16 and has_amx()) or not kernels.run_on_all_threads()
    return not is_slower and kernels.can_multiply(DTYPES[dtype])


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _places(rows: Rows) -> tuple[Any, int, int]:
    """The kernels' dtype of rows to write, their address, and that of their scales, or 0."""
    if isinstance(rows, Quantized):
        return kernels.BYTE, rows.values.data_ptr(), rows.scales.data_ptr()
    return DTYPES[rows.dtype], rows.data_ptr(), 0


class CompiledLayer(Layer):
    """A layer whose operations between the large matrix products are numba's kernels.

    They round differently from torch's operations. So one process uses one or the other, and a text
    gets the same vector in every pack.
    """

    def __init__(self, module: Any, dtype: torch.dtype, buffers: Buffers) -> None:
        """See `Layer`."""
        super().__init__(module, dtype, buffers)
        self._all_threads = kernels.run_on_all_threads()
        self._exact_epsilon = torch.tensor([self._epsilon], dtype=torch.float32)
        linears = (*module.self_attn.children(), *module.mlp.children())
        found = {x: few_rows(x) for x in linears if isinstance(x, (PrepackedLinear, Int8Linear))}
        self._few_rows = {linear: few for linear, few in found.items() if few is not None}

    def _normed(self, x: Tensor, weight: Tensor) -> Rows:
        found = self._take("normed", x.shape)
        dtype, *places = _places(found)
        given = (x.data_ptr(), weight.data_ptr(), self._exact_epsilon.data_ptr())
        kernels.run(kernels.norm(dtype), *given, *places, *x.shape)
        return found

    def _product(self, linear: Any, x: Rows) -> tuple[Tensor, Tensor | None]:
        """A linear layer's output, and factors that its rows must still be multiplied by."""
        few = self._few_rows.get(linear)
        if few is not None and few.takes(x):
            return few.product(x), None
        if isinstance(x, Quantized) and linear.bias is None:
            return linear.unscaled(x), x.scales
        return linear(x), None

    def _split(
        self,
        x: Rows,
        block: slice,
        cos: Tensor,
        sin: Tensor,
        into: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        query, keys, values = into
        qkv, factors = self._product(getattr(self._attention, MERGED), x)
        heads, rows, group, size = query.shape
        angles = cos.contiguous(), sin.contiguous()
        tensors = (self._head_weights, self._exact_epsilon, *angles, query, keys, values)
        kernels.run(
            kernels.rotate(DTYPES[qkv.dtype], DTYPES[query.dtype]),
            qkv.data_ptr(),
            _address(factors),
            *(x.data_ptr() for x in tensors),
            *(len(qkv), block.start, rows, keys.shape[1], heads, group, size),
        )

    def _swiglu(self, gate: Any, up: Any, x: Rows) -> Rows:
        if not self._all_threads:  # oneDNN's products compute SwiGLU too
            return super()._swiglu(gate, up, x)
        (a, factors), (b, _) = self._product(gate, x), self._product(up, x)
        out = self._take("inner", a.shape)
        dtype, *places = _places(out)
        given = (a.data_ptr(), b.data_ptr(), _address(factors))
        kernels.run(kernels.swiglu(DTYPES[a.dtype], dtype), *given, *places, *a.shape)
        return out

    def _add(self, x: Tensor, linear: Any, rows: Rows) -> None:
        more, factors = self._product(linear, rows)
        given = (x.data_ptr(), more.data_ptr(), _address(factors))
        kernels.run(kernels.add(DTYPES[more.dtype]), *given, *x.shape)

    def _read(self, name: str, x: Tensor) -> Rows:
        if not self._quantized:
            return x
        found = self._take(name, x.shape)
        _, *places = _places(found)
        kernels.run(kernels.quantize(DTYPES[x.dtype]), x.data_ptr(), *places, *x.shape)
        return found


class Attention:
    """Causal attention of all segments; see `qwen3_core.model.attention.Attention`.

    A head's scores with 64 keys are one matrix product, and so is what its weights mix of 64
    numbers of the values. Scores are float32.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        pieces = [[(p.start, p.stop) for p in (*s.prefix, s.keys)] for s in segments]
        most = max(map(len, pieces))
        self._queries = np.array([(s.queries.start, s.queries.stop) for s in segments])
        self._pieces = np.array([row + [(0, 0)] * (most - len(row)) for row in pieces])
        longest = int((self._pieces[..., 1] - self._pieces[..., 0]).sum(1).max())
        places = (self._queries.ctypes.data, self._pieces.ctypes.data)
        self._table = (*places, len(segments), most, longest)

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, out: Tensor, _: Buffers
    ) -> None:
        """See `qwen3_core.model.attention.Attention`."""
        heads, rows, group, size = query.shape
        given = [x.contiguous() for x in (query, keys, values.transpose(0, 1))]
        kernels.run(
            kernels.attention(DTYPES[query.dtype]),
            *(x.data_ptr() for x in (*given, out)),
            *self._table,
            *(heads, rows, keys.shape[1], group, size),
        )
