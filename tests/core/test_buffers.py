"""Buffers keep their memory from use to use; errors that mean too little memory are told apart."""

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from qwen3_core.model.buffers import (
    Buffers,
    give_back_freed,
    is_out_of_memory,
    openmp,
    release_threads,
)

CPU = torch.device("cpu")


def test_the_memory_of_a_name_is_used_again_for_what_fits():
    buffers = Buffers(CPU)
    first = buffers.take("a", torch.float32, 2, 6)
    again = buffers.take("a", torch.float32, 3, 4)
    smaller = buffers.take("a", torch.float32, 5)
    assert (first.shape, again.shape, smaller.shape) == ((2, 6), (3, 4), (5,))
    assert first.data_ptr() == again.data_ptr() == smaller.data_ptr()
    assert again.is_contiguous()


def test_a_larger_tensor_takes_the_place_of_the_smaller():
    buffers = Buffers(CPU)
    small = buffers.take("a", torch.float32, 4)
    large = buffers.take("a", torch.float32, 2, 4)
    assert large.data_ptr() != small.data_ptr()
    assert buffers.take("a", torch.float32, 4).data_ptr() == large.data_ptr()


def test_names_and_dtypes_have_memory_of_their_own():
    buffers = Buffers(CPU)
    taken = [
        buffers.take("a", torch.float32, 4),
        buffers.take("b", torch.float32, 4),
        buffers.take("a", torch.bfloat16, 4),
    ]
    assert [t.dtype for t in taken] == [torch.float32, torch.float32, torch.bfloat16]
    assert len({t.data_ptr() for t in taken}) == 3


def test_clear_gives_the_memory_back():
    buffers = Buffers(CPU)
    held = buffers.take("a", torch.float32, 4)
    buffers.clear()
    assert buffers.take("a", torch.float32, 4).data_ptr() != held.data_ptr()


def test_tensors_lie_on_the_device():
    assert Buffers(torch.device("meta")).take("a", torch.float32, 4).device.type == "meta"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("of some kind"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 4 GB)"),
        RuntimeError("CUDA error: Out of Memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_errors_that_mean_too_little_memory(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("a")]
)
def test_errors_that_mean_something_else(error):
    assert not is_out_of_memory(error)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="of glibc"
)
def test_freed_memory_is_given_back():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1])

    torch.ones(30 * 2**18)  # 30 MiB, freed: from now on glibc keeps what is smaller
    with ThreadPoolExecutor(1) as thread:
        tensors = thread.submit(lambda: [torch.ones(2**20) for _ in range(25)]).result()
    held = resident()
    del tensors
    give_back_freed()
    assert held - resident() > 20_000, "of 25,600 pages"


def test_other_c_libraries_have_nothing_to_give_back(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    give_back_freed()


def threads():
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(
    not hasattr(openmp(), "omp_pause_resource_all"), reason="no OpenMP of GNU's, or an old one"
)
def test_a_pass_leaves_no_openmp_threads_behind():
    def compute():
        release_threads()
        before = threads()
        torch.ones(2**20).add_(1)
        held = threads()
        release_threads()
        return before, held

    torch_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(1) as pool:
            before, held = pool.submit(compute).result()
            assert held == before + 2
            assert pool.submit(compute).result() == (before, held), "and new ones start"
    finally:
        torch.set_num_threads(torch_threads)


@pytest.fixture
def unloaded():
    openmp.cache_clear()
    yield
    openmp.cache_clear()


def test_other_openmp_libraries_keep_their_threads(unloaded, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name, mode=0: object())
    assert openmp() is None
    release_threads()


def test_an_openmp_that_only_torch_sees_is_found(unloaded, monkeypatch):
    """As in torch's wheels for Linux on ARM."""
    real = ctypes.CDLL
    try:
        torchs = real("libgomp.so.1", mode=getattr(os, "RTLD_NOLOAD", 0))
    except OSError:
        pytest.skip("torch has no OpenMP of this name here")
    monkeypatch.setattr(ctypes, "CDLL", lambda name, mode=0: real(name, mode) if name else object())
    found = openmp()
    assert found is not None
    assert found._handle == torchs._handle
