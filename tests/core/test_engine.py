"""A model is loaded once per process, released with its last user, and never copied or pickled."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import torch

from qwen3_core import Embedder, Reranker
from qwen3_core.engine.engine import open_engine
from tests.conftest import TINY


def test_equal_settings_share_one_engine():
    first, second = Embedder("tiny"), Embedder("tiny", dimensions=64, instruction="finance")
    assert first.engine is second.engine


def test_other_settings_do_not_share():
    assert Embedder("tiny", dtype="float32").engine is not Embedder("tiny", dtype="bfloat16").engine


def test_engine_is_released_with_its_last_user():
    model = Reranker(TINY / "reranker")
    gone = weakref.ref(model.engine)
    del model
    gc.collect()
    assert gone() is None


def test_threads_load_it_once(monkeypatch):
    import qwen3_core.model.loading

    loads = []
    load = qwen3_core.model.loading.load

    def counted(*args, **kwargs):
        loads.append(args)
        return load(*args, **kwargs)

    monkeypatch.setattr("qwen3_core.model.loading.load", counted)
    engines = []
    barrier = threading.Barrier(6)

    def work():
        barrier.wait()
        engines.append(open_engine(str(TINY / "reranker"), "reranker"))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(set(map(id, engines))) == 1


def test_a_program_may_have_another_default_device():
    expected = Embedder("tiny").embed_documents(["Where is data kept?"])
    with torch.device("meta"):  # as `torch.set_default_device` does
        found = Embedder(TINY / "embedding").embed_documents(["Where is data kept?"])
    np.testing.assert_array_equal(found, expected)


def test_pickles_and_copies_are_settings():
    model = Embedder("tiny", dimensions=64, max_length=100)
    expected = model.embed_queries(["What is Milvus?"])
    data = pickle.dumps(model)
    assert len(data) < 2000
    for twin in (pickle.loads(data), copy.deepcopy(model)):
        assert (twin.dimensions, twin.max_length) == (64, 100)
        assert twin.engine is model.engine
        np.testing.assert_array_equal(twin.embed_queries(["What is Milvus?"]), expected)


def test_threads_get_the_serial_answers():
    model = Reranker("tiny", dtype="float32")
    texts = [f"Milvus fact number {i}. " * (1 + i % 5) for i in range(12)]
    queries = [f"What is fact {i}?" for i in range(8)]
    serial = [model.score(texts, query) for query in queries]
    found: dict[int, np.ndarray] = {}

    def work(i):
        found[i] = model.score(texts, queries[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(queries))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, expected in enumerate(serial):
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_progress_bar_only_on_request(capfd):
    model = Embedder("tiny")
    model.embed_documents(["a", "b"])
    assert "Embedding" not in capfd.readouterr().err
    model.embed_documents(["a", "b"], show_progress=True)
    assert "2/2" in capfd.readouterr().err
