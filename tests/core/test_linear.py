"""Packed weights: the same products, used where the device has them, held once."""

import gc
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from qwen3_core.model import linear
from qwen3_core.model.int8 import Int8Linear
from qwen3_core.model.linear import (
    MERGED,
    PROJECTIONS,
    PrepackedLinear,
    prepack,
    projected,
    rounded,
    swiglu,
)
from tests.core.test_int8 import needs_int8


@pytest.fixture(autouse=True)
def try_anew():
    linear._prepacked_agrees.cache_clear()
    yield
    linear._prepacked_agrees.cache_clear()


def prepacked(module: nn.Module) -> bool:
    prepack(module)
    return not any(type(child) is nn.Linear for child in module.modules())


@pytest.fixture
def twin():
    """A gate and an up map beside each other in a module, and their exact forms."""
    torch.manual_seed(0)
    maps = {name: nn.Linear(48, 80) for name in ("gate", "up")}
    weights = {name: (m.weight.detach(), m.bias.detach()) for name, m in maps.items()}
    return nn.ModuleDict(maps), weights


def test_rows_are_one_or_a_multiple_of_the_step():
    counts = (1, 2, 16, 17, 32, 33, 1024)
    assert [rounded(count) for count in counts] == [1, 4, 16, 20, 32, 48, 1024]


@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (1030, 48), (2, 3, 48)])
def test_packed_products_are_the_products(twin, shape):
    module, weights = twin
    assert prepacked(module)
    x, gate, up = torch.randn(shape), module["gate"], module["up"]
    assert gate.out_features == 80
    exact = {name: F.linear(x, *parts) for name, parts in weights.items()}
    with torch.inference_mode():
        torch.testing.assert_close(gate(x), exact["gate"])
        torch.testing.assert_close(swiglu(gate, up, x), F.silu(exact["gate"]) * exact["up"])


def test_without_packed_products_the_maps_stay(twin, monkeypatch):
    module, weights = twin
    monkeypatch.setattr("torch.backends.mkldnn.enabled", False)
    assert not prepacked(module)
    x = torch.randn(7, 48)
    gate, up = (F.linear(x, *weights[name]) for name in ("gate", "up"))
    with torch.inference_mode():
        torch.testing.assert_close(swiglu(module["gate"], module["up"], x), F.silu(gate) * up)


@pytest.mark.parametrize("method", ["forward", "silu", "times"])
def test_packed_products_that_are_wrong_are_not_used(twin, monkeypatch, method):
    right = getattr(PrepackedLinear, method)
    monkeypatch.setattr(PrepackedLinear, method, lambda *args: right(*args) + 1)
    assert not prepacked(twin[0])


def test_packed_products_that_are_gone_are_not_used(twin, monkeypatch):
    def gone(*args):
        msg = "'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'"
        raise AttributeError(msg)

    monkeypatch.setattr(PrepackedLinear, "forward", gone)
    assert not prepacked(twin[0])


def test_other_devices_and_other_modules_keep_theirs():
    class Special(nn.Linear):
        pass

    meta = nn.ModuleList([nn.Linear(4, 4, device="meta")])
    special = nn.ModuleList([Special(4, 4)])
    prepack(meta)
    prepack(special)
    assert type(meta[0]) is nn.Linear
    assert type(special[0]) is Special


def test_the_weights_are_held_once():
    module = nn.ModuleList([nn.Linear(64, 64, bias=False) for _ in range(3)])
    weights = [weakref.ref(child.weight) for child in module]
    prepack(module)
    gc.collect()
    assert [weight() for weight in weights] == [None] * 3
    assert not list(module.parameters())


def megabytes(what):
    """What /proc tells of this process's memory, such as VmRSS, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what + ":"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory is held")
def test_prepacking_needs_little_memory_beside_the_weights():
    prepack(nn.ModuleList([nn.Linear(8, 8)]))  # what the first one loads
    torch.ones(30 * 2**18)  # 30 MiB, freed: from now on glibc keeps what is smaller

    def load():
        return [nn.ModuleList([nn.Linear(1024, 1024, bias=False)]) for _ in range(50)]

    with ThreadPoolExecutor(1) as thread:  # as transformers loads: into memory of its own
        blocks = thread.submit(load).result()
    before = megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    prepack(nn.ModuleList(blocks))
    assert megabytes("VmHWM") - before < 50, "of 200 MiB of weights"
    assert megabytes("VmRSS") - before < 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped")
def test_a_mapped_checkpoint_is_let_go(tmp_path):
    parts = {"embedding": torch.randn(10, 4), "linear": torch.randn(6, 4)}
    file = tmp_path / "weights.safetensors"
    save_file(parts, file)
    loaded = load_file(file)
    embedding = nn.Embedding.from_pretrained(loaded.pop("embedding"))
    linear = nn.ModuleList([nn.Linear(4, 6)])
    linear[0].weight = nn.Parameter(loaded.pop("linear"))
    prepack(nn.ModuleList([embedding, linear]))
    gc.collect()
    assert str(file) not in Path("/proc/self/maps").read_text()
    torch.testing.assert_close(embedding.weight.detach(), parts["embedding"])


def projections(outputs, **options):
    """Maps to queries, keys and values, as transformers names them, and one that stays apart."""
    torch.manual_seed(0)
    maps = zip((*PROJECTIONS, "o_proj"), outputs, strict=True)
    return nn.ModuleDict({name: nn.Linear(48, count, **options) for name, count in maps})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
def test_maps_to_queries_keys_and_values_become_one(monkeypatch, bias, enabled):
    monkeypatch.setattr("torch.backends.mkldnn.enabled", enabled)
    attention = projections((32, 16, 8, 4), bias=bias)
    x = torch.randn(7, 48)
    with torch.inference_mode():
        exact = torch.cat([attention[name](x) for name in PROJECTIONS], -1)
        torch.testing.assert_close(projected(attention, x), exact)
        weights = [weakref.ref(attention[name].weight) for name in PROJECTIONS]
        assert prepacked(attention) is enabled
        assert set(attention.keys()) == {MERGED, "o_proj"}
        gc.collect()
        assert [weight() for weight in weights] == [None] * 3
        torch.testing.assert_close(projected(attention, x), exact)


def test_maps_become_one_on_every_device():
    attention = projections((32, 16, 8, 4), device="meta", dtype=torch.bfloat16)
    prepack(attention)
    merged = attention[MERGED]
    assert type(merged) is nn.Linear
    assert (merged.in_features, merged.out_features) == (48, 56)
    assert merged.weight.shape == (56, 48)
    assert merged.weight.device.type == "meta"
    assert merged.weight.dtype == merged.bias.dtype == torch.bfloat16
    assert not merged.weight.requires_grad


def test_maps_of_another_kind_stay_apart():
    class Special(nn.Linear):
        pass

    attention = projections((32, 16, 8, 4))
    attention["v_proj"] = Special(48, 8)
    x = torch.randn(7, 48)
    with torch.inference_mode():
        exact = torch.cat([attention[name](x) for name in PROJECTIONS], -1)
        prepack(attention)
        assert type(attention["v_proj"]) is Special
        torch.testing.assert_close(projected(attention, x), exact)


def test_prepacking_again_changes_nothing():
    module = nn.ModuleList([nn.Linear(4, 4)])
    prepack(module)
    first = module[0]
    prepack(module)
    assert module[0] is first


@needs_int8
def test_maps_become_those_of_integers_where_asked_for():
    module = nn.ModuleList([nn.Linear(48, 80)])
    prepack(module, int8=True)
    assert isinstance(module[0], Int8Linear)
