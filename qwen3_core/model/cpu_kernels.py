"""Chooses between numba's kernels, where it is installed, and torch's operations."""

import logging
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

import torch

from qwen3_core.model.attention import Segment

logger = logging.getLogger(__name__)

MOST_THREADS = 4
"""The kernels run on one thread. On a pack of 1,000 tokens, torch on two threads takes over twice
as long as these kernels on one; torch wins above four threads."""


def kernels_for(
    device: torch.device, dtype: torch.dtype, *, int8: bool = False
) -> ModuleType | None:
    """`qwen3_core.model.numba_kernels`, or None where torch is faster or numba is missing.

    Args:
        device: The model's.
        dtype: Of queries, keys and values.
        int8: Whether linear maps run in 8-bit integers, which makes their outputs float32.

    The choice holds for a whole process: the kernels round differently from torch, and a text must
    get the same vector in every pack.
    """
    if (
        device.type != "cpu"
        or dtype not in (torch.float32, torch.bfloat16)
        or torch.get_num_threads() > MOST_THREADS
    ):
        return None
    return _kernels(dtype, int8)


@lru_cache
def _kernels(dtype: torch.dtype, int8: bool) -> ModuleType | None:
    """The kernels, if they can be compiled; tried once."""
    if find_spec("numba") is None:
        return None
    try:
        from qwen3_core.model import numba_kernels

        _compile(numba_kernels, dtype, int8=int8)
    except Exception as error:  # noqa: BLE001 - whatever numba raises, torch computes the same
        logger.warning("numba cannot compile the kernels here; using torch instead: %s", error)
        return None
    return numba_kernels


def _compile(kernels: ModuleType, dtype: torch.dtype, *, int8: bool) -> None:
    """Compile the kernels that a model calls, by calling each with a few rows."""
    rows, kv_heads, group, size = 2, 2, 1, 4
    x, every = torch.ones(rows, size), slice(0, rows)
    qkv = torch.ones(rows, 3 * kv_heads, size, dtype=torch.float32 if int8 else dtype)
    query = torch.empty(kv_heads, rows, group, size, dtype=dtype)
    keys = torch.empty(kv_heads, rows, size, dtype=dtype)
    values = torch.empty(rows, kv_heads, size, dtype=dtype)
    half = torch.ones(rows, size // 2)
    kernels.rotate(qkv, torch.ones(4, size), 1e-6, half, half, 0, query, keys, values)
    out = torch.empty(rows, kv_heads, group, size, dtype=dtype)
    attend = kernels.Attention([Segment(every, every)], None)
    attend(query, keys, values.transpose(0, 1), out, None)
    if int8:
        for floating in (x, x.to(dtype)):
            quantized = torch.empty(rows, size, dtype=torch.uint8)
            kernels.quantize(floating, quantized, torch.empty(rows, 1))
    else:
        kernels.norm(x, torch.ones(size), 1e-6, torch.empty(rows, size, dtype=dtype))
