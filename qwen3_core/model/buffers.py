"""Memory that forward passes use again and again, what is given back, and what was too little."""

import contextlib
import ctypes
import math
import sys

import torch
from torch import Tensor


class Buffers:
    """Named tensors on one device that keep their memory from one use to the next.

    A tensor of megabytes that is allocated anew comes as pages that the operating system has yet
    to clear; on CPUs that costs more than computing what is written there.
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
        """Give the memory back."""
        self._flat.clear()


def give_back_freed() -> None:
    """Return memory that was freed to the operating system, where the C library keeps it (glibc).

    It keeps tensors of up to 32 MiB, and holes between those that are still used.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a forward pass says that memory could not be had."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The CPU's allocator, and some libraries under CUDA and MPS, raise a plain RuntimeError.
    said = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in said or "not enough memory" in said or "out of memory" in said
    )
