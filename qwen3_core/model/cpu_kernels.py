"""Chooses between numba's kernels, where it is installed, and torch's operations."""

import logging
import sys
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

import torch

logger = logging.getLogger(__name__)

MOST_THREADS = 4
"""Where kernels cannot use torch's threads, they run on one: torch is then faster above four."""


def compiled_for(
    device: torch.device, dtype: torch.dtype, *, int8: bool = False
) -> ModuleType | None:
    """`qwen3_core.model.compiled`, or None where torch is faster or numba is missing.

    Args:
        device: The model's.
        dtype: Of queries, keys and values.
        int8: Whether linear maps run in 8-bit integers, which makes their outputs float32.

    The choice holds for a whole process: the kernels round differently from torch, and a text must
    get the same vector in every pack.
    """
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return None
    compiled = _compiled(dtype, int8)
    if compiled is None or compiled.kernels.run_on_all_threads():
        return compiled
    return compiled if torch.get_num_threads() <= MOST_THREADS else None


@lru_cache
def _compiled(dtype: torch.dtype, int8: bool) -> ModuleType | None:
    """The module, if its kernels can be compiled; tried once."""
    if find_spec("numba") is None:
        return None
    # A debugger or a coverage tool that traces each line would make the compiler take minutes.
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        from qwen3_core.model import compiled

        compiled.compile_kernels(dtype, int8=int8)
    except Exception as error:  # noqa: BLE001 - whatever numba raises, torch computes the same
        logger.warning("numba cannot compile the kernels here; using torch instead: %s", error)
        return None
    finally:
        sys.settrace(tracer)
    return compiled
