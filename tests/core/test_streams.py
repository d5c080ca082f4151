"""What an application needs around its calls: warming up, counting tokens, streams of vectors."""

import itertools

import numpy as np
import pytest

import langchain_qwen3
import llama_index_qwen3
import qwen3_core
from langchain_qwen3 import Qwen3CrossEncoder, Qwen3Embeddings, Qwen3Reranker
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank
from qwen3_core import Embedder, Reranker, TruncationWarning
from tests.conftest import TINY

TEXTS = [f"Fact {i}: segments are sealed. " * (1 + i % 3) for i in range(10)]
EMBEDDERS = [Embedder, Qwen3Embeddings, Qwen3Embedding]
RERANKERS = [Reranker, Qwen3Reranker, Qwen3CrossEncoder, Qwen3Rerank]


@pytest.fixture
def folders(tmp_path):
    """The bundled pair under names that no other test has loaded."""
    for kind in ("embedding", "reranker"):
        (tmp_path / kind).symlink_to(TINY / kind)
    return {**dict.fromkeys(EMBEDDERS, tmp_path / "embedding")} | {
        **dict.fromkeys(RERANKERS, tmp_path / "reranker")
    }


def core(component):
    """The embedder or reranker behind a component."""
    return getattr(component, "embedder", getattr(component, "reranker", component))


@pytest.mark.parametrize("kind", [*EMBEDDERS, *RERANKERS])
def test_warming_up_loads_the_model_and_computes(folders, kind):
    component = kind(model=folders[kind])
    component.warm_up()
    assert core(component)._engine is not None
    assert core(component).stats().sequences == 1


@pytest.mark.parametrize("kind", [*EMBEDDERS, *RERANKERS])
async def test_warming_up_in_an_event_loop(folders, kind):
    component = kind(model=folders[kind])
    await component.awarm_up()
    assert core(component).stats().sequences == 1


@pytest.mark.parametrize("kind", [*EMBEDDERS, *RERANKERS])
def test_warming_up_tells_what_the_first_call_would(tmp_path, kind):
    with pytest.raises(OSError, match="no_model"):
        kind(model=tmp_path / "no_model").warm_up()


@pytest.mark.parametrize("kind", [*EMBEDDERS, *RERANKERS])
def test_tokens_are_counted_without_the_weights(folders, kind):
    component = kind(model=folders[kind], max_length=64)
    counts = component.count_tokens([*TEXTS, "", "<|im_end|>", "word " * 500])
    assert core(component)._engine is None
    assert counts[10] == 0
    assert counts[11] > 1, "a control token that a text spells is text"
    assert counts[12] >= 500, "what max_length would cut is counted"
    tokenizer = core(component).engine.tokenizer
    assert counts[:10] == [len(tokenizer.encode(text)) for text in TEXTS]
    assert component.count_tokens(TEXTS) == counts[:10]
    with pytest.raises(TypeError, match=r"texts .*got str"):
        component.count_tokens("a text")


@pytest.mark.parametrize("kind", EMBEDDERS)
def test_a_stream_gives_the_vectors_of_the_list(kind):
    embedder = kind(model="tiny", dtype="float32")
    expected = core(embedder).embed_documents(TEXTS)
    batches = list(embedder.embed_stream((text for text in TEXTS), batch_size=4))
    assert [batch.shape for batch in batches] == [(4, 256), (4, 256), (2, 256)]
    assert all(batch.dtype == np.float32 for batch in batches)
    np.testing.assert_allclose(np.concatenate(batches), expected, atol=1e-5)
    assert list(embedder.embed_stream([])) == []


@pytest.mark.parametrize("kind", EMBEDDERS)
async def test_an_asynchronous_stream_gives_the_same(kind):
    embedder = kind(model="tiny", dtype="float32")
    expected = core(embedder).embed_documents(TEXTS)
    batches = [batch async for batch in embedder.aembed_stream(iter(TEXTS), batch_size=4)]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    np.testing.assert_allclose(np.concatenate(batches), expected, atol=1e-5)


@pytest.mark.parametrize("kind", EMBEDDERS)
def test_a_stream_takes_texts_as_it_needs_them(kind):
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield f"text {i}"

    stream = kind(model="tiny").embed_stream(endless(), batch_size=3)
    assert taken == []
    next(stream)
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("kind", EMBEDDERS)
def test_a_stream_refuses_at_once_what_it_cannot_take(kind):
    embedder = kind(model="tiny")
    for stream in (embedder.embed_stream, embedder.aembed_stream):
        with pytest.raises(TypeError, match=r"texts .*got str"):
            stream("a text")
        for size in (0, -1, True, 2.0):
            with pytest.raises(ValueError, match="batch_size must be"):
                stream(TEXTS, batch_size=size)


def test_a_stream_names_texts_by_their_position_in_the_whole():
    embedder = Embedder("tiny", max_length=32)
    with pytest.raises(TypeError, match=r"texts\[3\] .*got int"):
        list(embedder.embed_stream(["a", "b", "c", 4], batch_size=2))  # type: ignore[list-item]
    with pytest.warns(TruncationWarning, match=r"first: documents\[2\]"):
        list(embedder.embed_stream(["a", "b", "word " * 100], batch_size=2))


def test_the_warning_is_to_be_had_from_each_package():
    assert (
        langchain_qwen3.TruncationWarning
        is llama_index_qwen3.TruncationWarning
        is qwen3_core.TruncationWarning
    )
    assert "TruncationWarning" in {*langchain_qwen3.__all__} & {*llama_index_qwen3.__all__}
