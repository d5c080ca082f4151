"""Products of few rows on the weights that oneDNN has prepacked.

For a query's dozen rows the time is that of reading the weights. oneDNN's products read 19 of the
27 GB a second that two cores of an AMD EPYC can read, in bfloat16, and 17 in 8-bit integers; these
products read 26. The results are the same to the bit, which is tested with random numbers of each
shape, so a text's vector does not depend on which of the two computes it.

Importing this module needs numba.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from qwen3_core.model import numba_kernels as kernels
from qwen3_core.model.int8 import ZERO, Int8Linear, Quantized
from qwen3_core.model.linear import FEW, PrepackedLinear

Linear = PrepackedLinear | Int8Linear

STORED: dict[torch.dtype, Any] = {
    torch.float32: kernels.FLOAT,
    torch.bfloat16: kernels.BITS,
    torch.int8: kernels.BYTE,
}
"""The kernels' dtypes of rows, by the dtype of the weights."""

CHUNKS = (256, 512, 1024, 128, 64)
"""Words after which oneDNN adds its sums to the result, as far as seen: it depends on the shape."""


class FewRows:
    """The product of up to `linear.FEW` rows with a linear layer's weights."""

    def __init__(self, linear: Linear, width: int, chunk: int) -> None:
        """Use a layer's weights.

        Args:
            linear: The layer, without bias; the weights stay where they are.
            width: Its input features.
            chunk: Words after which sums are added up.
        """
        self._linear = linear
        self._sizes = (width, linear.out_features, chunk)
        weights = torch.ops.mkldnn.data_ptr(linear.weight)
        dtype = STORED[linear.dtype]
        if isinstance(linear, Int8Linear):
            self._zeros = linear.sums.mul(ZERO)  # what the rows' zero point adds to each column
            self._places = (weights, linear.scales.data_ptr(), self._zeros.data_ptr())
            self._dtypes: tuple[Any, Any] = (dtype, kernels.FLOAT)
        else:
            self._places = (weights, 0, 0)
            self._dtypes = (dtype, dtype)

    def takes(self, x: Tensor | Quantized) -> bool:
        """Whether the rows are few enough to be faster here."""
        return len(x) <= FEW

    def product(self, x: Tensor | Quantized) -> Tensor:
        """The layer's output: x is (n, width), the result a new (n, columns)."""
        if isinstance(x, Quantized):
            given = x.values.data_ptr(), x.scales.data_ptr()
            out = torch.empty(len(x), self._linear.out_features)
        else:
            given = x.data_ptr(), 0
            out = x.new_empty(len(x), self._linear.out_features)
        table = (*given, *self._places, out.data_ptr(), len(x), *self._sizes)
        kernels.run(kernels.product(*self._dtypes), *table)
        return out


def few_rows(linear: Linear) -> FewRows | None:
    """A layer's product of few rows, or None if this CPU or oneDNN's layout do not allow it."""
    if linear.bias is not None or not kernels.run_on_all_threads():
        return None
    chunk = _chunk(linear.dtype, linear.in_features, linear.out_features)
    return None if chunk is None else FewRows(linear, linear.in_features, chunk)


@lru_cache
def _chunk(dtype: torch.dtype, width: int, columns: int) -> int | None:
    """The chunk that gives oneDNN's results to the bit for a shape, or None."""
    numbers = 4 // dtype.itemsize  # in a word
    has_places = hasattr(torch.ops.mkldnn, "data_ptr") and hasattr(torch.ops.mkldnn, "_nbytes")
    if not (has_places and kernels.can_multiply(STORED[dtype])) or width % numbers:
        return None
    with torch.random.fork_rng(devices=()), torch.inference_mode():
        torch.manual_seed(0)
        is_int8 = dtype == torch.int8
        some = torch.randn(1_000_003)  # a prime: each row of the weights gets other numbers
        some = some.bfloat16() if is_int8 else some.to(dtype)
        weight = some.repeat(width * columns // len(some) + 1)[: width * columns]
        plain = torch.nn.Linear(width, columns, bias=False, device="meta")
        plain.weight = torch.nn.Parameter(weight.view(columns, width), requires_grad=False)
        linear: Linear = Int8Linear(plain) if is_int8 else PrepackedLinear(plain)
        rows = torch.randn(FEW + 4, width)
        x: Any = Quantized.of(rows) if is_int8 else rows.to(dtype)
        stored = -(-columns // kernels.COLUMNS) * kernels.COLUMNS * width * dtype.itemsize
        if torch.ops.mkldnn._nbytes(linear.weight) < stored:  # noqa: SLF001 - another layout
            return None
        expected = [linear(x[:12]), linear(x)[:FEW]]
        for chunk in (*CHUNKS, width // numbers):
            few = FewRows(linear, width, chunk)
            found = [few.product(x[:12]), few.product(x[:FEW])]
            if all(map(torch.equal, found, expected)):
                return chunk
    return None
