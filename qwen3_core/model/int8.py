"""8-bit integer linear layers: one weight scale per output channel, one activation scale per row.

CPUs with VNNI instructions multiply them about twice as fast as bfloat16, and the weights take half
the memory. Each row's scale is computed from the row (dynamic quantisation), so no calibration is
needed.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from qwen3_core.model.buffers import Buffers

LARGEST = 127
"""The integers range from -127 to 127: symmetric, so that 0 stays 0."""

ZERO = 128
"""Zero point of rows: the kernels take unsigned integers."""

SMALLEST = 1e-30
"""The smallest scale, used for rows of zeros, so that every scale has an inverse."""

ROWS = 1024
"""Number of rows that the weight layout is chosen for; it is fast for any number."""

BLOCK = 2**20
"""Weights quantised at a time: few enough for the CPU's caches and for negligible memory."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """Quantised rows: `scales * (values - ZERO)`."""

    values: Tensor
    """(rows, width) uint8."""
    scales: Tensor
    """(rows, 1) float32."""

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> "Quantized":
        return Quantized(self.values[rows], self.scales[rows])

    @classmethod
    def take(cls, buffers: Buffers, name: str, rows: int, width: int) -> "Quantized":
        """Memory for `rows` rows with arbitrary contents, valid until the name is taken again."""
        values = buffers.take(name, torch.uint8, rows, width)
        return cls(values, buffers.take(f"{name} scales", torch.float32, rows, 1))

    @classmethod
    def of(cls, x: Tensor) -> "Quantized":
        """Quantise rows (rows, width) of any floating dtype."""
        buffers = Buffers(x.device)
        return cls.take(buffers, "rows", *x.shape).copy_(x, buffers)

    def copy_(self, x: Tensor, buffers: Buffers) -> "Quantized":
        """Quantise rows (rows, width) of any floating dtype."""
        largest, least = x.amax(-1, keepdim=True), x.amin(-1, keepdim=True)
        torch.maximum(largest.float(), least.float().neg_(), out=self.scales)
        self.scales.div_(LARGEST).clamp_(min=SMALLEST)
        scaled = buffers.take("scaled", torch.float32, *x.shape)
        torch.div(x, self.scales, out=scaled).round_()
        self.values.view(torch.int8).copy_(scaled)
        self.values.bitwise_xor_(ZERO)  # adds 128
        return self


class Int8Linear(nn.Module):
    """A Linear module in 8-bit integers on a CPU; the integer sums are exact."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = torch.int8
        weight = linear.weight.detach()
        values = torch.empty(weight.shape, dtype=torch.int8)
        self.scales = torch.empty(len(weight))
        self.sums = torch.empty(len(weight), dtype=torch.int32)
        step = max(1, BLOCK // weight.shape[1])
        exact = torch.empty(min(step, len(weight)), weight.shape[1])
        for begin in range(0, len(weight), step):
            rows = slice(begin, begin + step)
            block = exact[: len(weight) - begin].copy_(weight[rows])
            scales = torch.maximum(block.amax(1), block.amin(1).neg_())
            scales = scales.div_(LARGEST).clamp_(min=SMALLEST)
            values[rows] = block.div_(scales[:, None]).round_()
            self.sums[rows] = block.sum(1)
            self.scales[rows] = scales
        self.weight = torch.ops.onednn.qlinear_prepack(values, [ROWS, values.shape[1]])
        self._zeros = torch.zeros(self.out_features, dtype=torch.int64)
        bias: Tensor | None = linear.bias  # torch annotates it as never None
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: Quantized) -> Tensor:
        """Apply the layer to (n, in_features); returns a new (n, out_features) float32."""
        product = self.unscaled(x).mul_(x.scales)
        return product if self.bias is None else product.add_(self.bias)

    def unscaled(self, x: Quantized) -> Tensor:
        """The layer's output without bias, not yet multiplied by the rows' scales."""
        rows = (x.values, 1.0, ZERO)
        weights = (self.weight, self.scales, self._zeros)
        result: Any = (1.0, 0, torch.float32, "none", [], "")
        product: Tensor = torch.ops.onednn.qlinear_pointwise(*rows, *weights, None, *result)
        return product


def why_not(device: str) -> str | None:
    """Why a device cannot compute in 8-bit integers, or None if it can."""
    if torch.device(device).type != "cpu":
        return f"it is for CPUs, not for {device!r}"
    return _failure()


@lru_cache
def _failure() -> str | None:
    """What is wrong with the kernels, or None; tested once.

    They are not part of PyTorch's public interface (its compiler uses them). CPUs without VNNI add
    pairs of products in 16 bits, which overflow for large values.
    """
    random = torch.Generator().manual_seed(0)
    weight = torch.randint(-LARGEST, LARGEST + 1, (40, 96), generator=random)
    weight[0] = weight[:, 0] = LARGEST  # so that all scales are 1
    rows = torch.randint(1, 2 * ZERO, (5, 96), generator=random)
    rows[0] = 2 * ZERO - 1
    linear = nn.Linear(96, 40, bias=False)
    linear.weight.data = weight.float()
    x = Quantized(rows.to(torch.uint8), torch.ones(len(rows), 1))
    try:
        if not bool(torch.backends.mkldnn.enabled):
            return "oneDNN is switched off"
        with torch.inference_mode():
            found = Int8Linear(linear)(x)
    except (AttributeError, RuntimeError, TypeError) as error:
        return f"torch {torch.__version__} has no kernels for it here ({error})"
    exact = (rows - ZERO) @ weight.T
    return None if torch.equal(found.long(), exact) else "this CPU's 8-bit products overflow"
