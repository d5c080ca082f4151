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


def kernels_for(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """`qwen3_core.model.numba_kernels`, or None where torch is faster or numba is missing.

    The choice holds for a whole process: the kernels round differently from torch, and a text must
    get the same vector in every pack.
    """
    if (
        device.type != "cpu"
        or dtype not in (torch.float32, torch.bfloat16)
        or torch.get_num_threads() > MOST_THREADS
    ):
        return None
    return _kernels(dtype)


@lru_cache
def _kernels(dtype: torch.dtype) -> ModuleType | None:
    """The kernels, if they can be compiled; tried once."""
    if find_spec("numba") is None:
        return None
    try:
        from qwen3_core.model import numba_kernels

        _compile(numba_kernels, dtype)
    except Exception as error:  # noqa: BLE001 - whatever numba raises, torch computes the same
        logger.warning("numba cannot compile the kernels here; using torch instead: %s", error)
        return None
    return numba_kernels


def _compile(kernels: ModuleType, dtype: torch.dtype) -> None:
    """Compile the kernels for a dtype, by calling each with a few rows."""
    rows, kv_heads, group, size = 2, 2, 1, 4
    x, weight = torch.ones(rows, size), torch.ones(size)
    kernels.norm(x, weight, 1e-6, torch.empty(rows, size, dtype=dtype))
    qkv = torch.ones(rows, 3 * kv_heads, size, dtype=dtype)
    query = torch.empty(kv_heads, rows, group, size, dtype=dtype)
    keys = torch.empty(kv_heads, rows, size, dtype=dtype)
    values = torch.empty(rows, kv_heads, size, dtype=dtype)
    half = torch.ones(rows, size // 2)
    kernels.rotate(qkv, torch.ones(4, size), 1e-6, half, half, 0, query, keys, values)
    every = slice(0, rows)
    out = torch.empty(rows, kv_heads, group, size, dtype=dtype)
    attend = kernels.Attention([Segment(every, every)], None)
    attend(query, keys, values.transpose(0, 1), out, None)
    for floating in (x, qkv[:, 0].contiguous()):
        kernels.quantize(floating, torch.empty(rows, size, dtype=torch.uint8), torch.empty(rows, 1))
