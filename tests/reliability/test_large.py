"""Large inputs: answered in full or cut with a warning, in memory that the token budget bounds."""

import itertools
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from qwen3_core import Embedder, Reranker
from qwen3_core.tokenizer import TruncationWarning
from tests.conftest import ROOT, TINY

LONGEST = 40_960


def random_model(folder: Path, kind: str, hidden_size: int = 64) -> Path:
    """A model with random weights that reads long texts; small, so that they take little time."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    tokenizer = json.loads((TINY / kind / "tokenizer.json").read_text("utf-8"))
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=1 + max(token["id"] for token in tokenizer["added_tokens"]),
        hidden_size=hidden_size,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=LONGEST,
        initializer_range=0.15,
        tie_word_embeddings=True,
    )
    model = (Qwen3Model if kind == "embedding" else Qwen3ForCausalLM)(config)
    model.save_pretrained(folder / kind)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / kind / name, folder / kind)
    return folder / kind


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Both kinds."""
    folder = tmp_path_factory.mktemp("large")
    return {kind: random_model(folder, kind) for kind in ("embedding", "reranker")}


def test_vectors_of_4096_dimensions(tmp_path):
    folder = random_model(tmp_path, "embedding", hidden_size=4096)
    embedder = Embedder(folder, dtype="float32")
    vectors = embedder.embed_documents(["one", "two"])
    assert vectors.shape == (2, 4096)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert Embedder(folder, dtype="float32", dimensions=4096).embed_queries(["x"]).shape == (
        1,
        4096,
    )


def test_a_thousand_instructions(pair):
    """More than are kept: each query gets the vector of its own."""
    embedder = Embedder(pair["embedding"], dtype="float32")
    tasks = [f"Given question number {i}, retrieve passages" for i in range(1000)]
    vectors = np.concatenate([embedder.embed_queries(["why?"], instruction=t) for t in tasks])
    assert len(np.unique(vectors.round(4), axis=0)) == 1000
    again = np.concatenate([embedder.embed_queries(["why?"], instruction=t) for t in tasks[::97]])
    np.testing.assert_allclose(again, vectors[::97], atol=1e-5)


@pytest.mark.nightly
def test_texts_of_a_megabyte(pair):
    text = "segments are flushed " * 50_000
    embedder = Embedder(pair["embedding"], dtype="float32", max_length=8192)
    # Texts are read as they are worked on, so that the first of them alone is known by then.
    with pytest.warns(TruncationWarning, match="at least 1 of the documents .first: documents.0"):
        vectors = embedder.embed_documents([text, "short", text + "?", text])
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-5)
    reranker = Reranker(pair["reranker"], dtype="float32", max_length=8192)
    with pytest.warns(TruncationWarning):
        scores = reranker.score([text, "short", text], "What is flushed?")
    assert scores[0] == pytest.approx(scores[2], abs=1e-4)


@pytest.mark.nightly
def test_documents_of_32_thousand_tokens(pair):
    text = "flush " * 32_000
    embedder = Embedder(pair["embedding"], dtype="float32", max_length=LONGEST)
    assert len(embedder.engine.tokenizer.encode(text)) >= 32_000
    alone = embedder.embed_documents([text])
    np.testing.assert_allclose(embedder.embed_documents(["a", text])[1:], alone, atol=1e-5)
    reranker = Reranker(pair["reranker"], dtype="float32", max_length=LONGEST)
    alone = reranker.score([text], "What is flushed?")
    both = reranker.score([text, text + "it"], "What is flushed?")
    np.testing.assert_allclose(both[:1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.nightly
def test_ten_thousand_candidates(pair):
    reranker = Reranker(pair["reranker"], dtype="float32")
    documents = [f"Fact {i}: segment {i * 7919 % 10_007} is flushed." for i in range(10_000)]
    ranking = reranker.rerank(documents, "Which segment is flushed?")
    assert sorted(r.index for r in ranking) == list(range(10_000))
    assert all(a.log_odds >= b.log_odds for a, b in itertools.pairwise(ranking))
    some = ranking[::1999]
    alone = reranker.score([documents[r.index] for r in some], "Which segment is flushed?")
    np.testing.assert_allclose(alone, [r.log_odds for r in some], atol=1e-4)


@pytest.mark.nightly
def test_a_hundred_thousand_texts(pair):
    embedder = Embedder(pair["embedding"], dtype="float32")
    vectors = embedder.embed_documents(f"text {i}" for i in range(100_000))
    assert vectors.shape == (100_000, 64)
    some = [0, 1, 31_337, 99_999]
    alone = embedder.embed_documents([f"text {i}" for i in some])
    np.testing.assert_allclose(vectors[some], alone, atol=1e-5)


MEASURE = """
    import sys, threading, time
    from qwen3_core import Embedder

    folder, count = sys.argv[1], int(sys.argv[2])
    embedder = Embedder(folder, dtype="float32", max_length=8192)
    text = "segment flush word " * 2_600
    embedder.embed_documents([text] * 4)
    texts = [f"{i} {text}" for i in range(count)]
    page, peak, done = 4096, 0, False

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * page / 2**20

    def watch():
        global peak
        while not done:
            peak = max(peak, resident())
            time.sleep(0.005)

    before = resident()
    watcher = threading.Thread(target=watch)
    watcher.start()
    embedder.embed_documents(texts)
    done = True
    watcher.join()
    print(len(embedder.engine.tokenizer.encode(text)), peak - before)
"""


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory as Linux tells it")
def test_memory_does_not_grow_with_the_number_of_documents(pair):
    """A thousand documents of 8,000 tokens, beyond the inputs themselves and the vectors."""

    def peak(count: int) -> float:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEASURE), str(pair["embedding"]), str(count)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=900,
            check=True,
        )
        tokens, growth = done.stdout.split()
        assert int(tokens) >= 7_500
        return float(growth)

    few, many = peak(30), peak(1000)
    print(f"peak above the start: {few:.0f} MiB for 30 documents, {many:.0f} MiB for 1,000")
    assert many < few + 64
