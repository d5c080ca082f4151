"""The pass for CUDA devices on torch's fake tensors: shapes, dtypes and devices without numbers.

They show what no CPU does: operations between two devices, and those that wait for the GPU. Also
counted: how many kernels a layer launches. `varlen_attn` is torch's own, except for its kernel.
"""

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qwen3_core.model import cascade, cuda
from qwen3_core.model.encoder import Encoder
from qwen3_core.model.loading import load, resolve_device
from qwen3_core.model.packing import TokenSequence, Work
from qwen3_core.model.weights import Weights

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it looks into libc10.so"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="test_cuda.py runs on the GPU here"),
]

CUDA, META = 1, 14  # numbers in c10's DeviceType
BETWEEN = " between devices"


class Watch(TorchDispatchMode):
    """Lists kernels on the GPU, and transfers, in order."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "prim":  # a tensor's device
            return func(*args, **kwargs)
        with self:  # operations that consist of others
            found = func.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
        found = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs, found)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors}
        name = func.overloadpacket.__name__
        if name == "_varlen_attn":
            check(*args)
        if len(devices) > 1:
            self.seen.append(name + BETWEEN)
        elif devices == {"cuda"} and not func.is_view and name != "empty":
            self.seen.append(name)
        return found

    def compiled(self, function, **_):
        """In place of `torch.compile`: counts as one kernel."""

        def fused(*args):
            before = len(self.seen)
            found = function(*args)
            if len(self.seen) > before:
                self.seen[before:] = [function.__name__]
            return found

        return fused


def check(query, keys, values, query_ends, key_ends, most_queries, most_keys, *_):
    """What `mha_varlen_fwd` in torch's flash_api.cpp refuses; it reads 16 bytes at a time."""
    for x in (query, keys, values):
        assert (x.dtype, x.device) == (torch.bfloat16, torch.device("cuda:1"))
        assert x.stride(-1) == 1
        assert x.shape[-1] % 8 == 0
        assert {x.storage_offset() % 8, *(stride % 8 for stride in x.stride()[:-1])} == {0}
    for ends in (query_ends, key_ends):
        assert ends.dtype == torch.int32
        assert ends.is_contiguous()
    assert len(query_ends) == len(key_ends)
    assert type(most_queries) is type(most_keys) is int


@pytest.fixture(scope="module")
def fakes():
    """A mode of fake tensors on devices that are not there, and a watch."""
    watch = Watch()
    tensor = torch.tensor
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 20).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    caches = cascade.flash_agrees, cuda.compiled
    with pytest.MonkeyPatch.context() as patch:
        # torch without CUDA has no idea of a current device: one that is never changed will do.
        guards[CUDA], before = guards[META], guards[CUDA]
        patch.setattr(torch, "tensor", lambda *x, pin_memory=False, **kw: tensor(*x, **kw))
        stream = SimpleNamespace(synchronize=lambda: watch.seen.append("synchronize" + BETWEEN))
        patch.setattr(torch.cuda, "current_stream", {torch.device("cuda:1"): stream}.__getitem__)
        patch.setattr(torch.cuda, "mem_get_info", {torch.device("cuda:1"): (0, 0)}.__getitem__)
        patch.setattr(Weights, "read", lambda self, key: torch.empty(self.shape(key)))
        patch.setattr(Weights, "_check_finite", lambda *_: None)
        patch.setattr(torch.Tensor, "numpy", lambda x: np.zeros(x.shape))
        patch.setattr(torch, "compile", watch.compiled)
        patch.setattr(torch.testing, "assert_close", lambda *_, **__: None)
        for cache in caches:
            cache.cache_clear()
        yield FakeTensorMode(), watch
        for cache in caches:
            cache.cache_clear()
        guards[CUDA] = before


@pytest.fixture(scope="module")
def encoder(fakes):
    mode, watch = fakes
    with mode, watch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "item", lambda _: 0.0)  # the self-test's difference
        encoder = Encoder(load("tiny", "embedding", device="cuda:1", dtype="bfloat16").model)
    run(fakes, encoder, [()])  # compiles
    return encoder


def run(fakes, encoder, prefixes, lengths=(1, 2, 130)):
    """What a pack of texts of these lengths with each of these prefixes launches."""
    mode, watch = fakes
    work = Work([TokenSequence(p, tuple(range(n))) for p in prefixes for n in lengths])
    watch.seen.clear()
    with mode, watch:
        states = encoder.run(encoder.next_pack([([work], 10_000)]))
    assert states.shape == (len(prefixes) * len(lengths), encoder.hidden_size)
    return list(watch.seen)


SHORT, LONG, LONGER = (1, 2, 3), tuple(range(20)), tuple(range(40))


@pytest.mark.parametrize(
    ("known", "prefixes", "kernels"),
    [
        ([], [()], 10),
        ([LONG], [LONG], 12),
        ([LONG, SHORT], [SHORT, LONG], 14),
        ([], [LONG], 18),
        ([LONG], [LONGER], 20),
        ([LONG], [(), LONG], 16),
        ([], [SHORT, LONG], 25),
        ([LONG], [SHORT, LONG], 24),
        ([SHORT, LONG], [(), SHORT, LONGER, (7,)], 33),
    ],
)
def test_a_pass_waits_for_the_gpu_once(fakes, encoder, known, prefixes, kernels):
    encoder.forget()
    if known:
        run(fakes, encoder, known)
    seen = run(fakes, encoder, prefixes)
    assert transfers(seen) == ["_to_copy", "copy_", "synchronize"]
    assert first_layer(seen) == kernels


def test_a_long_text_is_computed_in_blocks(fakes, encoder):
    seen = run(fakes, encoder, [()], [1100])
    assert transfers(seen) == ["_to_copy", "copy_", "synchronize"]
    assert first_layer(seen) == 15


def test_the_pass_without_flash_attention_waits_for_the_gpu_once(fakes, encoder, monkeypatch):
    monkeypatch.setattr(encoder, "_flash", None)
    encoder.forget()
    run(fakes, encoder, [LONG], [1])
    seen = run(fakes, encoder, [LONGER], [300])
    assert transfers(seen) == ["_to_copy"] * 4  # three lists of numbers, and the result
    assert seen.count("rsqrt_") == 2 * 3 + 1  # all rows at once


def transfers(seen):
    return [name.removesuffix(BETWEEN) for name in seen if name.endswith(BETWEEN)]


def first_layer(seen):
    """The number of kernels from the first product to the second addition."""
    end = [i for i, name in enumerate(seen) if name == "summed"][1]
    return end + 1 - seen.index("mm")


@pytest.mark.parametrize("named", ["auto", "cuda", "cuda:0"])
def test_a_gpu_has_one_name(fakes, monkeypatch, named):
    """Two names would be two copies of a model."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with fakes[0]:
        assert resolve_device(named) == "cuda:0"
