"""Numba's kernels where it is installed, and the same answers without it."""

import logging
import sys

import numpy as np
import pytest
import torch

from qwen3_core import Embedder, model
from qwen3_core.model import cpu_kernels
from qwen3_core.model.attention import BlockAttention, Segment, last_tokens_of
from qwen3_core.model.buffers import Buffers
from tests.conftest import ROOT
from tests.core.test_int8 import needs_int8

CPU = torch.device("cpu")
QUERIES = ["What is Milvus?", "Where are segments stored?", "怎样删除数据?"]


@pytest.fixture
def kernels():
    return pytest.importorskip("qwen3_core.model.numba_kernels", reason="no extra 'numba'")


def encoded(dtype, tmp_path, monkeypatch, *, with_kernels):
    """Vectors of queries: the first computes the prefix too, the others use it; then of all."""
    folder = tmp_path / str(with_kernels)  # another name is another engine
    folder.symlink_to(ROOT / "qwen3_core" / "tiny" / "embedding")
    with monkeypatch.context() as patch:
        if not with_kernels:
            patch.setattr(cpu_kernels, "kernels_for", lambda device, dtype, *, int8: None)
        embedder = Embedder(folder, dtype=dtype)
        assert (embedder.engine.encoder._kernels is not None) is with_kernels
        found = [embedder.embed_queries([query])[0] for query in QUERIES]
        found += [*embedder.embed_queries(QUERIES)]
        embedder.close()
    return np.stack(found)


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [("float32", 1e-6), ("bfloat16", 0.01), pytest.param("int8", 0.02, marks=needs_int8)],
)
def test_vectors_are_the_same_without_numba(kernels, dtype, bound, tmp_path, monkeypatch):
    compiled = encoded(dtype, tmp_path, monkeypatch, with_kernels=True)
    plain = encoded(dtype, tmp_path, monkeypatch, with_kernels=False)
    assert np.abs(compiled - plain).max() < bound


def test_the_texts_alone_decide_which_attention_a_segment_gets(kernels):
    def segment(own, prefix, *, has_result=True):
        keys = slice(100, 100 + own)
        return Segment(keys, keys, (slice(0, prefix),) if prefix else (), has_result)

    for short in (segment(32, 0), segment(20, 31), segment(2, 30, has_result=False)):
        assert kernels.is_short(short)
    for long in (segment(33, 0), segment(20, 32), segment(2, 31, has_result=False)):
        assert not kernels.is_short(long)
    for segments in ([segment(20, 31)], [segment(20, 32)], [segment(2, 31, has_result=False)]):
        for last in last_tokens_of(segments):
            assert kernels.is_short(last) is kernels.is_short(segments[0])


def test_segments_are_computed_once(kernels):
    torch.manual_seed(0)
    lengths = [5, 40, 8]
    stops = np.cumsum(lengths)
    rows = [slice(int(stop - n), int(stop)) for stop, n in zip(stops, lengths, strict=True)]
    segments = [Segment(each, each) for each in rows]
    query = torch.randn(2, 53, 1, 8)
    keys, values = torch.randn(2, 2, 53, 8).unbind()
    left = []

    def others(segments):
        left.extend(segments)
        return BlockAttention(segments)

    found, expected = torch.full((2, 53, 2, 1, 8), torch.nan).unbind()
    kernels.Attention(segments, others)(query, keys, values, found, Buffers(CPU))
    BlockAttention(segments)(query, keys, values, expected, Buffers(CPU))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert left == [segments[1]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_and_devices_are_left_to_torch(dtype):
    assert cpu_kernels.kernels_for(CPU, dtype) is None
    assert cpu_kernels.kernels_for(torch.device("cuda"), torch.bfloat16) is None


def test_with_many_threads_torch_is_faster(kernels, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert cpu_kernels.kernels_for(CPU, torch.float32) is kernels
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert cpu_kernels.kernels_for(CPU, torch.float32) is None


@pytest.fixture
def untried():
    cpu_kernels._kernels.cache_clear()
    yield
    cpu_kernels._kernels.cache_clear()


def test_without_numba_there_are_no_kernels(untried, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "qwen3_core.model.numba_kernels", raising=False)
    monkeypatch.delattr(model, "numba_kernels", raising=False)
    with caplog.at_level(logging.INFO):
        assert cpu_kernels.kernels_for(CPU, torch.float32) is None
    assert not caplog.records


def test_a_numba_that_does_not_work_is_named(kernels, untried, monkeypatch, caplog):
    def fail(*args):
        msg = "cannot determine the type of slice"
        raise TypeError(msg)

    monkeypatch.setattr(kernels, "norm", fail)
    assert cpu_kernels.kernels_for(CPU, torch.float32) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "numba" in record.message
    assert "cannot determine the type of slice" in record.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(kernels, dtype, value):
    x = torch.ones(3, 8)
    x[1, 2] = value
    out = torch.empty(3, 8, dtype=dtype)
    kernels.norm(x, torch.ones(8), 1e-6, out)
    assert not out[1].isfinite().all()
    assert out[[0, 2]].isfinite().all()


def test_bfloat16_is_rounded_to_nearest_even(kernels):
    x = torch.cat((torch.randn(1, 4096), torch.tensor([[1 + 2**-8, 1 + 3 * 2**-8]])), 1)
    scaled = torch.empty_like(x)
    rounded = torch.empty(x.shape, dtype=torch.bfloat16)
    kernels.norm(x, torch.ones(x.shape[1]), 0.0, scaled)
    kernels.norm(x, torch.ones(x.shape[1]), 0.0, rounded)
    torch.testing.assert_close(rounded, scaled.bfloat16(), atol=0, rtol=0)


def test_rows_are_quantised_as_by_torch(kernels):
    x = torch.randn(5, 96)
    x[2] = 0
    values, scales = torch.empty(5, 96, dtype=torch.uint8), torch.empty(5, 1)
    kernels.quantize(x, values, scales)
    torch.testing.assert_close(scales[:, 0], (x.abs().amax(1) / 127).clamp(min=1e-30))
    assert torch.equal(values.int() - 128, (x / scales).round().int())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_has_a_scale_that_is_not(kernels, value):
    x = torch.ones(3, 8)
    x[1, 2] = value
    scales = torch.empty(3, 1)
    kernels.quantize(x, torch.empty(3, 8, dtype=torch.uint8), scales)
    assert scales.isfinite().flatten().tolist() == [True, False, True]
