"""Vectors and scores equal the published code's, whatever the packing, the order and the prefix.

Random weights: equality does not depend on what a model has learnt, and random scores differ more.
"""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qwen3_core import Embedder, Reranker
from tests.conftest import TINY, naming
from tests.reference import TASK, ReferenceEmbedder, ReferenceReranker, query_prompt

pytestmark = pytest.mark.filterwarnings("ignore::qwen3_core.tokenizer.TruncationWarning")

FLOAT32 = 1e-5
"""Largest difference between the published code and ours in float32."""

WORDS = (
    "Milvus stores vectors in segments; 数据 is flushed.\nWhy? 42 émigrés asked <b>so</b> \u0301"
)
MAX_LENGTH = 160


def ragged_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of very different lengths, an empty one and a few longer than MAX_LENGTH among them."""
    chance = random.Random(seed)
    words = WORDS.split(" ")
    lengths = [0, 1, 2, 300, *(chance.randint(1, 35) for _ in range(count - 4))]
    return [" ".join(chance.choices(words, k=n)) for n in lengths]


@pytest.fixture(scope="module")
def embedding_folder(random_checkpoints) -> Iterator[Path]:
    folder = random_checkpoints["embedding"]
    held = embedder(folder).engine  # so that the tests need not load it again and again
    yield folder
    del held


@pytest.fixture(scope="module")
def embedding_reference(embedding_folder) -> ReferenceEmbedder:
    return ReferenceEmbedder(embedding_folder)


@pytest.fixture(scope="module", params=["reranker", "untied"])
def reranker_folder(request, random_checkpoints) -> Iterator[Path]:
    folder = random_checkpoints[request.param]
    held = reranker(folder).engine
    yield folder
    del held


@pytest.fixture(scope="module")
def reranker_reference(reranker_folder) -> ReferenceReranker:
    return ReferenceReranker(reranker_folder)


def forgetful(model):
    """The component, whose engine remembers no prefix yet."""
    model.engine.encoder.forget()
    return model


def embedder(folder, **kwargs) -> Embedder:
    return Embedder(folder, dtype="float32", device="cpu", max_length=MAX_LENGTH, **kwargs)


def reranker(folder, **kwargs) -> Reranker:
    return Reranker(folder, dtype="float32", device="cpu", max_length=MAX_LENGTH, **kwargs)


@pytest.mark.parametrize("pack_tokens", [1, 37, 100_000])
def test_document_vectors(embedding_folder, embedding_reference, pack_tokens):
    texts = ragged_texts(14)
    expected = embedding_reference.embed(texts, MAX_LENGTH)
    ours = embedder(embedding_folder, pack_tokens=pack_tokens).embed_documents(texts)
    assert np.abs(expected[0] - expected[4]).max() > 0.01, "the reference tells texts apart"
    np.testing.assert_allclose(ours, expected, atol=FLOAT32)


@pytest.mark.parametrize("dimensions", [32, 48, 64])
def test_shorter_vectors_are_cut_then_normalised(embedding_folder, embedding_reference, dimensions):
    texts = ragged_texts(8)[4:]
    expected = embedding_reference.embed(texts, MAX_LENGTH, dimensions)
    ours = embedder(embedding_folder, dimensions=dimensions).embed_documents(texts)
    assert ours.shape == (4, dimensions)
    np.testing.assert_allclose(ours, expected, atol=FLOAT32)


@pytest.mark.parametrize("task", [TASK, "Retrieve semantically similar text"])
def test_query_vectors(embedding_folder, embedding_reference, task):
    queries = ["What is Milvus?", "  spaces", "数据", "?", *ragged_texts(9)[4:]]
    expected = embedding_reference.embed([query_prompt(q, task) for q in queries], MAX_LENGTH)
    ours = embedder(embedding_folder).embed_queries(queries, instruction=task)
    np.testing.assert_allclose(ours, expected, atol=FLOAT32)


def test_query_vector_differs_from_document_vector(embedding_folder):
    model = embedder(embedding_folder)
    query, document = model.embed_queries(["Milvus"])[0], model.embed_documents(["Milvus"])[0]
    assert query @ document < 0.99


QUERY = "How is data stored?\n"


@pytest.fixture(scope="module")
def reference_scores(reranker_reference) -> np.ndarray:
    """Of ten texts; all logits of a large vocabulary take their time."""
    pairs = [(QUERY, text) for text in ragged_texts(10)]
    scores: np.ndarray = reranker_reference.log_odds(pairs, MAX_LENGTH)
    return scores


@pytest.mark.parametrize("pack_tokens", [1, 250, 100_000])
def test_rerank_scores(reranker_folder, reference_scores, pack_tokens):
    expected = reference_scores
    ours = reranker(reranker_folder, pack_tokens=pack_tokens).score(ragged_texts(10), QUERY)
    assert np.ptp(expected) > 0.1, "the reference tells documents apart"
    np.testing.assert_allclose(ours, expected, atol=FLOAT32 * max(1, np.abs(expected).max()))


def test_rerank_scores_of_many_queries(reranker_folder, reranker_reference):
    texts = ragged_texts(12)[4:]
    pairs = [(f"query {i % 3}", text) for i, text in enumerate(texts)]
    expected = reranker_reference.log_odds(pairs, MAX_LENGTH)
    ours = reranker(reranker_folder).score_pairs(pairs)
    np.testing.assert_allclose(ours, expected, atol=FLOAT32 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("seed", range(3))
def test_order_and_company_do_not_matter(reranker_folder, seed):
    texts = ragged_texts(12, seed)[4:]
    model = reranker(reranker_folder, pack_tokens=200)
    together = model.score(texts, "a query")
    alone = np.concatenate([model.score([text], "a query") for text in texts])
    order = np.random.default_rng(seed).permutation(len(texts))
    shuffled = model.score([texts[i] for i in order], "a query")
    scale = FLOAT32 * max(1, np.abs(together).max())
    np.testing.assert_allclose(alone, together, atol=scale)
    np.testing.assert_allclose(shuffled, together[order], atol=scale)


BFLOAT16_VECTORS = 2e-3
"""Largest distance of two vectors of one text in bfloat16. On CPUs with bfloat16 instructions it
was at most 6e-5, with 10 layers and 512 dimensions, and mostly 0."""

BFLOAT16_LOG_ODDS = 1e-2
"""Largest difference of two log-odds of one pair in bfloat16; it was at most 2e-4, of 8."""


def companies(answer, items):
    """Answers to the items alone, at once, shuffled, and from many threads, in the items' order."""
    order = np.random.default_rng(0).permutation(len(items))
    back = np.argsort(order)
    alone = np.concatenate([answer([item]) for item in items])
    shuffled = answer([items[i] for i in order])[back]
    with ThreadPoolExecutor(8) as pool:
        mixed = np.concatenate(list(pool.map(lambda i: answer([items[i]]), order)))[back]
    return alone, [answer(items), shuffled, mixed]


def bfloat16(folders, **options) -> tuple[Embedder, Reranker]:
    options |= {"dtype": "bfloat16", "device": "cpu"}
    return Embedder(folders["embedding"], **options), Reranker(folders["reranker"], **options)


@pytest.fixture(scope="module")
def random_in_bfloat16(random_checkpoints) -> Iterator[dict[str, Path]]:
    held = [component.engine for component in bfloat16(random_checkpoints)]
    yield random_checkpoints
    del held


def check_order_and_company(embed: Embedder, rank: Reranker, seed: int) -> None:
    texts = ragged_texts(14, seed)[4:]
    pairs = [(f"query {i % 3}", text) for i, text in enumerate(texts)]
    for answer, items in ((embed.embed_documents, texts), (embed.embed_queries, texts)):
        alone, others = companies(answer, items)
        assert np.linalg.norm(alone[1:] - alone[0], axis=1).min() > 10 * BFLOAT16_VECTORS
        for found in others:
            assert np.linalg.norm(found - alone, axis=1).max() <= BFLOAT16_VECTORS
    alone, others = companies(rank.score_pairs, pairs)
    assert np.ptp(alone) > 10 * BFLOAT16_LOG_ODDS
    for found in others:
        assert np.abs(found - alone).max() <= BFLOAT16_LOG_ODDS


@pytest.mark.parametrize("pack_tokens", [60, 250, 2048])
def test_order_and_company_matter_little_in_bfloat16(random_in_bfloat16, pack_tokens):
    models = bfloat16(random_in_bfloat16, pack_tokens=pack_tokens)
    check_order_and_company(*models, seed=pack_tokens)


@pytest.mark.parametrize("pack_tokens", [60, 250, 2048])
def test_order_and_company_matter_little_to_the_bundled_pair_in_bfloat16(pack_tokens):
    models = bfloat16({"embedding": "tiny", "reranker": "tiny"}, pack_tokens=pack_tokens)
    check_order_and_company(*models, seed=pack_tokens)


def test_remembered_prefixes_change_nothing(embedding_folder):
    model = forgetful(embedder(embedding_folder))
    first = model.embed_queries(["What is Milvus?"])
    assert model.engine.encoder._prefixes, "the instruction's keys and values are kept"
    np.testing.assert_allclose(model.embed_queries(["What is Milvus?"]), first, atol=FLOAT32)
    other = model.embed_queries(["What is Milvus?"], instruction="Find something else entirely")
    assert np.abs(other - first).max() > 1e-3


@pytest.fixture(scope="module")
def tied(random_checkpoints) -> Iterator[Path]:
    """The folder of the first reranker, whose model stays loaded."""
    folder = random_checkpoints["reranker"]
    held = reranker(folder).engine
    yield folder
    del held


def test_a_prefix_that_begins_like_a_remembered_one_is_computed_from_there(tied):
    texts = ragged_texts(6)
    queries = ["How is data stored?", "How is data", "How is data stored? In what format?", "Who?"]
    expected = [forgetful(reranker(tied)).score(texts, q) for q in queries]
    model = forgetful(reranker(tied))
    bare = model.engine.tokenizer.rerank_prefix(TASK, "")
    for query, scores in zip(queries, expected, strict=True):
        before = model.stats().tokens
        found = model.score(texts, query)
        np.testing.assert_allclose(found, scores, atol=FLOAT32 * max(1, np.abs(scores).max()))
        prefix = model.engine.tokenizer.rerank_prefix(TASK, query)
        rows, _ = model.engine.tokenizer.rerank_documents(texts, MAX_LENGTH - len(prefix))
        computed = model.stats().tokens - before - sum(map(len, rows))
        assert (
            computed == len(prefix)
            if query == queries[0]
            else computed <= len(prefix) - len(bare) + 4
        )


def test_remembered_prefixes_are_bounded(tied, monkeypatch):
    monkeypatch.setattr("qwen3_core.model.encoder.PREFIX_CACHE_TOKENS", 250)
    model = forgetful(reranker(tied))
    model.score_pairs([(f"query {i // 2}", "a text " * 10) for i in range(24)])
    held = list(model.engine.encoder._prefixes)
    assert len(held) > 1
    assert sum(map(len, held)) <= 250


def test_a_prefix_larger_than_the_cache_still_serves_its_packs(tied, monkeypatch):
    query, texts = "How is data stored?", ragged_texts(10)
    expected = reranker(tied).score(texts, query)
    monkeypatch.setattr("qwen3_core.model.encoder.PREFIX_CACHE_TOKENS", 0)
    model = forgetful(reranker(tied, pack_tokens=100))
    before = model.stats()
    found = model.score(texts, query)
    computed = model.stats().tokens - before.tokens
    prefix = len(model.engine.tokenizer.rerank_prefix(TASK, query))
    rows, _ = model.engine.tokenizer.rerank_documents(texts, MAX_LENGTH - prefix)
    assert computed <= prefix + sum(map(len, rows))
    np.testing.assert_allclose(found, expected, atol=FLOAT32 * max(1, np.abs(expected).max()))


def test_bfloat16_stays_close_to_float32():
    texts = ["Milvus writes inserted data to object storage.", "Cats sleep most of the day.", ""]
    query = "How is data stored in Milvus?"
    exact, rough = (
        Reranker("tiny", dtype=dtype).score(texts, query) for dtype in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(rough, exact, atol=0.2)  # 0.1, of 6.6
    exact, rough = (
        Embedder("tiny", dtype=d).embed_documents(texts) for d in ("float32", "bfloat16")
    )
    assert (exact * rough).sum(axis=1).min() > 0.999


def test_not_finite_states_are_an_error(embedding_folder):
    model = embedder(embedding_folder)
    weight = model.engine.encoder.model.norm.weight
    before = weight.clone()
    try:
        weight[3] = float("nan")
        with pytest.raises(
            FloatingPointError, match=naming("NaN", "input 0 in float32", "dtype='bfloat16'")
        ):
            model.embed_documents(["text"])
    finally:
        weight.copy_(before)


def test_sentence_transformers_gives_the_bundled_models_vectors():
    reason = "sentence-transformers is not here (a peer, not needed to run)"
    peer = pytest.importorskip("sentence_transformers", reason=reason)

    texts = ["Milvus stores data in object storage.", "Cats.", "a longer text " * 30]
    peer = peer.SentenceTransformer(
        str(TINY / "embedding"), device="cpu", model_kwargs={"dtype": "float32"}
    )
    ours = Embedder("tiny", dtype="float32", device="cpu")
    theirs = peer.encode_document(texts), peer.encode_query(texts)
    for expected, found in zip(
        theirs, (ours.embed_documents(texts), ours.embed_queries(texts)), strict=True
    ):
        assert (expected * found).sum(axis=1).min() > 0.9999
