"""Scratch buffers and OpenMP threads of forward passes, and how they are released."""

import contextlib
import ctypes  # noqa: TID251 - only for libraries that the process has loaded already
import math
import os
import sys
from functools import lru_cache

import torch
from torch import Tensor

from qwen3_core.common.fork import has_forked

OMP_PAUSE_SOFT = 1
"""`omp_pause_soft` of OpenMP 5: settings such as the number of threads are kept."""


class Buffers:
    """Named tensors on one device that keep their memory from one use to the next.

    The operating system has to clear the pages of each new allocation of megabytes. On CPUs that
    costs more than computing the contents.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._flat: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        """A contiguous tensor with arbitrary contents, valid until the name is taken again."""
        size = math.prod(shape)
        flat = self._flat.get((name, dtype))
        if flat is None or flat.numel() < size:
            flat = self._flat[name, dtype] = torch.empty(size, dtype=dtype, device=self._device)
        return flat[:size].view(shape)

    def clear(self) -> None:
        """Release the memory."""
        self._flat.clear()


def give_back_freed() -> None:
    """Return freed memory to the operating system where the C library keeps it (glibc).

    glibc keeps freed tensors of up to 32 MiB, and gaps between tensors in use.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # other C libraries lack the function
            ctypes.CDLL(None).malloc_trim(0)


@lru_cache
def openmp() -> ctypes.CDLL | None:
    """The GNU OpenMP whose threads torch computes on, or None with another library or system.

    torch's wheels load it for all libraries on x86, and for torch alone on ARM.
    """
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "GOMP_parallel"):
        try:
            library = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:  # not loaded
            return None
    return library if hasattr(library, "GOMP_parallel") else None


def release_threads() -> None:
    """End the OpenMP threads of the calling thread; its next parallel operation starts new ones.

    Each thread that computes with torch has its own OpenMP threads. If there are more of them in
    the process than cores, GNU's OpenMP lets them sleep after each operation instead of spinning.
    Waking them takes 40 microseconds, for hundreds of operations a pass: a query then takes a
    third longer. Starting new threads takes 40 microseconds once. Does nothing without GNU's
    OpenMP (`openmp`), or on a thread that has forked.
    """
    library = openmp()
    if library is not None and not has_forked():
        with contextlib.suppress(AttributeError):  # an old one
            library.omp_pause_resource_all(OMP_PAUSE_SOFT)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a forward pass failed for lack of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The CPU's allocator, and some libraries under CUDA and MPS, raise a plain RuntimeError.
    said = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in said
        or "not enough memory" in said
        or "out of memory" in said
        or "status_alloc_failed" in said  # cuBLAS
    )
