"""Eight-bit integers: exact sums, close results, and no model that does not bear them."""

import gc
import logging
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from qwen3_core import Embedder, Reranker
from qwen3_core.engine.engine import held_engine
from qwen3_core.model import int8
from qwen3_core.model.buffers import Buffers
from qwen3_core.model.int8 import Int8Linear, Quantized, why_not
from qwen3_core.model.linear import prepack
from qwen3_core.model.loading import resolve_dtype
from tests.conftest import naming
from tests.core.test_parity import (
    BFLOAT16_LOG_ODDS,
    BFLOAT16_VECTORS,
    companies,
    ragged_texts,
)

pytestmark = pytest.mark.filterwarnings("ignore::qwen3_core.tokenizer.TruncationWarning")
needs_int8 = pytest.mark.skipif(why_not("cpu") is not None, reason=f"no int8: {why_not('cpu')}")


@pytest.fixture
def buffers():
    return Buffers(torch.device("cpu"))


@pytest.fixture
def tried_anew():
    int8._failure.cache_clear()
    yield
    int8._failure.cache_clear()


def quantized(x, buffers):
    return Quantized.take(buffers, "x", *x.shape).copy_(x, buffers)


def restored(x):
    return x.scales * (x.values.float() - int8.ZERO)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_keep_their_numbers_to_half_a_step(buffers, dtype):
    x = (torch.randn(9, 50) * torch.logspace(-3, 3, 9)[:, None]).to(dtype)
    found = quantized(x, buffers)
    assert found.values.dtype == torch.uint8
    assert len(found) == 9
    steps = x.float().abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close(found.scales, steps)
    assert ((restored(found) - x.float()).abs() <= 0.501 * steps).all()


def test_the_largest_is_kept_whatever_its_sign(buffers):
    x = torch.tensor([[-4.0, 1, 0], [4, -1, 0], [0, 0, 0]])
    found = quantized(x, buffers)
    assert found.values.tolist() == [[1, 160, 128], [255, 96, 128], [128, 128, 128]]
    assert (restored(found)[2] == 0).all()


def test_rows_are_chosen_with_their_scales(buffers):
    x = torch.randn(6, 8)
    every = quantized(x, buffers)
    for rows in (slice(2, 4), torch.tensor([5, 0])):
        assert torch.equal(restored(every[rows]), restored(every)[rows])


@needs_int8
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "width", "out"), [(1, 48, 80), (7, 33, 5), (1030, 256, 48)])
def test_products_are_those_of_the_integers(buffers, rows, width, out, bias):
    linear = nn.Linear(width, out, bias=bias)
    weight = linear.weight.detach()
    x = quantized(torch.randn(rows, width), buffers)
    found = Int8Linear(linear)(x)
    scales = weight.abs().amax(1, keepdim=True) / 127
    sums = (x.values.long() - 128) @ (weight / scales).round().long().T
    expected = sums * x.scales.double() * scales.T
    if bias:
        expected += linear.bias.detach()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@needs_int8
def test_a_row_that_is_not_finite_stays_so_and_alone(buffers):
    x = torch.randn(3, 48)
    x[1, 5] = torch.nan
    found = Int8Linear(nn.Linear(48, 80))(quantized(x, buffers))
    assert found.isfinite().all(1).tolist() == [True, False, True]


@needs_int8
def test_the_weights_are_not_held_beside_their_integers():
    module = nn.ModuleDict({"map": nn.Linear(64, 64)})
    gone = weakref.ref(module["map"].weight)
    prepack(module, int8=True)
    gc.collect()
    assert gone() is None
    assert isinstance(module["map"], Int8Linear)


# Where there is none


def test_it_is_for_cpus():
    reason = "it is for CPUs, not for 'cuda'; use dtype='auto'"
    with pytest.raises(ValueError, match=f"dtype 'int8' is not available: {reason}"):
        resolve_dtype("int8", "cuda")


def test_without_onednn_there_is_none(monkeypatch, tried_anew):
    monkeypatch.setattr("torch.backends.mkldnn.enabled", False)
    with pytest.raises(ValueError, match=naming("'int8'", "oneDNN", "dtype='auto'")):
        Embedder("tiny", dtype="int8").embed_documents(["text"])


def test_without_kernels_there_is_none(monkeypatch, tried_anew):
    def gone(*args):
        msg = "'_OpNamespace' 'onednn' object has no attribute 'qlinear_pointwise'"
        raise AttributeError(msg)

    monkeypatch.setattr(Int8Linear, "forward", gone)
    assert "has no kernels for it here ('_OpNamespace' 'onednn'" in str(why_not("cpu"))


@needs_int8
def test_products_that_overflow_are_not_used(monkeypatch, tried_anew):
    right = Int8Linear.forward

    def saturated(self, x):  # as on CPUs that add pairs of products in 16 bits
        return right(self, x).clamp(max=2.0**20)

    monkeypatch.setattr(Int8Linear, "forward", saturated)
    assert why_not("cpu") == "this CPU's 8-bit products overflow"


# Models


@needs_int8
def test_the_bundled_embedding_model_stays_close(caplog):
    texts = [*ragged_texts(12)[4:], "Milvus keeps data in object storage.", "Cats sleep."]
    exact = Embedder("tiny", dtype="float32").embed_documents(texts)
    with caplog.at_level(logging.INFO, "qwen3_core.model.int8_check"):
        model = Embedder("tiny", dtype="int8")
        found = model.embed_documents(texts)
    assert (exact * found).sum(1).min() > 0.99
    assert (exact != found).any()
    assert model.engine.encoder.dtype == "int8"
    assert model.engine is not Embedder("tiny").engine
    assert "tiny in 8-bit integers: 1 - cosine is at most 0.00" in caplog.text


@needs_int8
def test_a_model_that_does_not_bear_it_is_refused():
    model = Reranker("tiny", dtype="int8")
    for _ in range(2):
        with pytest.raises(ValueError, match=naming("int8", "'tiny'", "cosine", "dtype='auto'")):
            model.score(["a text"], "a query")
    held = held_engine("tiny", "reranker", revision=None, device="auto", dtype="int8")
    assert held is None


@needs_int8
def test_scores_stay_close(random_checkpoints):
    texts = ragged_texts(16)[4:]
    exact, found = (
        Reranker(random_checkpoints["reranker"], dtype=dtype).score(texts, "a query")
        for dtype in ("float32", "int8")
    )
    moved = np.abs(exact - found)
    assert 0 < moved.max() < 0.1 * np.ptp(exact)


@needs_int8
@pytest.mark.parametrize("which", ["tiny", "random"])
@pytest.mark.parametrize("pack_tokens", [60, 2048])
def test_order_and_company_matter_little(random_checkpoints, which, pack_tokens):
    texts = ragged_texts(24, seed=pack_tokens)[4:]
    options = {"dtype": "int8", "device": "cpu", "pack_tokens": pack_tokens}
    embed = Embedder("tiny" if which == "tiny" else random_checkpoints["embedding"], **options)
    for answer in (embed.embed_documents, embed.embed_queries):
        alone, others = companies(answer, texts)
        assert np.linalg.norm(alone[1:] - alone[0], axis=1).min() > 10 * BFLOAT16_VECTORS
        for found in others:
            assert np.linalg.norm(found - alone, axis=1).max() <= BFLOAT16_VECTORS
    rank = Reranker(random_checkpoints["reranker"], **options)
    pairs = [(f"query {i % 3}", text) for i, text in enumerate(texts)]
    alone, others = companies(rank.score_pairs, pairs)
    assert np.ptp(alone) > 10 * BFLOAT16_LOG_ODDS
    for found in others:
        assert np.abs(found - alone).max() <= BFLOAT16_LOG_ODDS
