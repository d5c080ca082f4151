"""Linear layers with weights prepacked into the layout that the CPU's kernels read.

oneDNN, which computes PyTorch's matrix products on CPUs, otherwise reorders the weights in every
call. With prepacked weights, bfloat16 products take about half the time for 12 rows and a twentieth
less for 1,000 rows; float32 products take a third and three quarters of the time (Qwen3-0.6B's
shapes, AMD EPYC with AVX-512). oneDNN also fuses the following elementwise operation.
"""

import logging
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen3_core.model.buffers import give_back_freed
from qwen3_core.model.int8 import ROWS, Int8Linear

logger = logging.getLogger(__name__)

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
"""transformers' names of the projections to queries, keys and values."""

MERGED = "qkv_proj"
"""Name of the merged projection."""

STEP = 16
"""Row counts of products are padded to a multiple of this, except a single row.

oneDNN compiles a program for each new shape and caches a thousand of them, about a megabyte each:
texts of every length would take a gigabyte and, with a small model, a seventh of the time.
"""

FEW, FEW_STEP = 32, 4
"""Up to 32 rows are padded to a multiple of 4 instead of 16: 12 query tokens would otherwise cost a
third more."""


def rounded(count: int) -> int:
    """The number of rows to compute where `count` are needed; see `STEP`."""
    step = STEP if count > FEW else FEW_STEP
    return count if count == 1 else count + -count % step


class PrepackedLinear(nn.Module):
    """A Linear module on a CPU, with weights in a layout that only oneDNN can read."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = linear.weight.dtype
        self.bias = linear.bias
        reorder = torch.ops.mkldnn._reorder_linear_weight  # noqa: SLF001
        self.weight = reorder(linear.weight.detach(), ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to x, (..., in_features); returns a new tensor (..., out_features)."""
        return self._then("none", x)

    def silu(self, x: Tensor) -> Tensor:
        """SiLU of the layer's output."""
        return self._then("swish", x)

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """The layer's output times a tensor of the same shape."""
        product = torch.ops.mkldnn._linear_pointwise.binary  # noqa: SLF001
        return cast("Tensor", product(x, factor, self.weight, self.bias, "mul"))

    def _then(self, function: str, x: Tensor) -> Tensor:
        product = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        return cast("Tensor", product(x, self.weight, self.bias, function, [], ""))


def prepack(module: nn.Module, *, int8: bool = False) -> None:
    """Replace the Linear modules within a module by prepacked ones, if the device supports them.

    With `int8=True`, replaces them by `Int8Linear`, which the device must support. q, k and v are
    merged first, on every device; see `projected`.

    Converted one parent module at a time, so that little is ever held twice. Weights of other
    modules are copied: they may be views of a mapped file, which would otherwise stay in memory
    whole.
    """
    found = False
    for parent in [m for m in module.modules() if type(m) is not nn.Linear]:
        _merge_projections(parent)
        if _prepack_children(parent, int8=int8):
            give_back_freed()
            found = True
    for weight in module.parameters() if found else ():
        weight.data = weight.data.clone()


def _merge_projections(parent: nn.Module) -> None:
    """Merge the query, key and value projections directly within a module, if it has them."""
    linears: list[Any] = [getattr(parent, name, None) for name in PROJECTIONS]
    if not all(type(linear) is nn.Linear for linear in linears):
        return
    first, *_ = linears
    merged = nn.Linear(first.in_features, sum(m.out_features for m in linears), device="meta")
    for name in ("weight", "bias"):
        parts = [getattr(linear, name) for linear in linears]
        whole = None if parts[0] is None else torch.cat(parts)
        setattr(merged, name, None if whole is None else nn.Parameter(whole, requires_grad=False))
    for name in PROJECTIONS:
        delattr(parent, name)
    setattr(parent, MERGED, merged)


def _prepack_children(parent: nn.Module, *, int8: bool) -> bool:
    """Replace the Linear modules directly within a module; returns whether there were any."""
    found = False
    for name in [name for name, _ in parent.named_children()]:
        child = getattr(parent, name)
        if type(child) is nn.Linear and (int8 or _can_be_prepacked(child.weight)):
            setattr(parent, name, Int8Linear(child) if int8 else PrepackedLinear(child))
            found = True
        del child  # frees its weights before the next ones are prepacked
    return found


def projected(attention: Any, x: Any) -> Tensor:
    """Queries, keys and values of x, concatenated: (rows, all heads * head_dim)."""
    if hasattr(attention, MERGED):
        merged: Tensor = getattr(attention, MERGED)(x)
        return merged
    return torch.cat([getattr(attention, name)(x) for name in PROJECTIONS], -1)


def swiglu(gate: Any, up: Any, x: Any) -> Tensor:
    """SwiGLU: SiLU of the gate projection of x times its up projection; x is their input."""
    if isinstance(gate, PrepackedLinear) and isinstance(up, PrepackedLinear):
        return up.times(x, gate.silu(x))
    inner: Tensor = F.silu(gate(x), inplace=True)
    return inner.mul_(up(x))


def _can_be_prepacked(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and _prepacked_agrees(weight.dtype)


@lru_cache
def _prepacked_agrees(dtype: torch.dtype) -> bool:
    """Whether prepacked products are available and correct; tested once.

    They are not part of PyTorch's public interface (its compiler uses them).
    """
    with torch.random.fork_rng(devices=()), torch.inference_mode():
        torch.manual_seed(0)
        linears = [nn.Linear(64, 96, dtype=dtype, bias=bias) for bias in (False, True)]
        x = torch.randn(5, 64, dtype=dtype)
        factor = torch.randn(5, 96, dtype=dtype)
        try:
            if not bool(torch.backends.mkldnn.enabled):
                msg = "oneDNN is switched off"
                raise RuntimeError(msg)
            for linear in linears:
                prepacked, exact = PrepackedLinear(linear), F.linear(x, linear.weight, linear.bias)
                pairs = (
                    (prepacked(x), exact),
                    (prepacked.silu(x), F.silu(exact)),
                    (prepacked.times(x, factor), exact * factor),
                )
                for found, expected in pairs:
                    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
        except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
            logger.debug("torch %s, %s: no prepacked products: %s", torch.__version__, dtype, error)
            return False
    return True
