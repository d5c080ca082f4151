"""Leaving the interpreter while an executor still holds embeddings and Milvus Lite searches.

Milvus Lite alone, without this package, hangs when the interpreter exits while an executor holds
queued searches, or one is just on its way: `concurrent.futures` shuts every executor down first,
that of Lite's own server among them, whose thread ends with "cannot schedule new futures after
shutdown"; then it waits for the searches, which try to connect again and again. The first test
shows it. What goes through this package ends: queued calls fail before they reach the store, and
searches of the two-stage retriever and query engine that are on their way may end
(`qwen3_core.engine.shutdown`).
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import ROOT

COUNT_ERRORS = """
    import atexit, faulthandler
    from collections import Counter

    def leave(futures):
        # A hang shows where every thread is, and ends.
        faulthandler.dump_traceback_later(120, exit=True)
        errors = lambda: Counter(type(future.exception()).__name__ for future in futures)
        atexit.register(lambda: print(dict(errors())))
        print("leaving", not any(future.done() for future in futures))
"""

START = (
    """
    import sys, threading
    from concurrent.futures import ThreadPoolExecutor
    from pymilvus import MilvusClient
    from qwen3_core import Embedder

    THREADS = 4
    embedder = Embedder("tiny", pack_tokens=64)
    client = MilvusClient(sys.argv[1])
    client.create_collection("facts", dimension=embedder.dimensions)
    vectors = embedder.embed_documents([f"fact number {i}" for i in range(200)])
    client.insert("facts", [{"id": i, "vector": v} for i, v in enumerate(vectors)])
    pool = ThreadPoolExecutor(THREADS)
    """
    + COUNT_ERRORS
)

LANGCHAIN = (
    """
    import asyncio, sys, threading, time
    from qwen3_core.engine import worker
    from qwen3_core.model.encoder import Encoder
    from langchain_milvus import Milvus
    from langchain_qwen3 import (
        Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever, milvus_kwargs
    )
    from concurrent.futures import ThreadPoolExecutor

    QUERIES = [f"What is fact {i}?" for i in range(200)]
    store = Milvus(**milvus_kwargs(Qwen3Embeddings(model="tiny"), uri=sys.argv[1]))
    store.add_texts([f"fact number {i}" for i in range(50)], ids=[str(i) for i in range(50)])
    reranker = Qwen3Reranker(model="tiny")
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker, k=10)
    retriever.invoke("Is it loaded?")
    begun = threading.Semaphore(0)
    """
    + COUNT_ERRORS
)

LLAMA_INDEX = (
    """
    import sys, threading, time
    from qwen3_core.engine import worker
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.llms import MockLLM
    from llama_index.core.schema import QueryBundle, TextNode
    from llama_index.vector_stores.milvus import MilvusVectorStore
    from llama_index_qwen3 import (
        Qwen3Embedding, Qwen3Rerank, milvus_kwargs, two_stage_query_engine
    )
    from concurrent.futures import ThreadPoolExecutor

    QUERIES = [QueryBundle(f"What is fact {i}?") for i in range(200)]
    embed_model = Qwen3Embedding(model="tiny")
    store = MilvusVectorStore(**milvus_kwargs(embed_model, uri=sys.argv[1]))
    nodes = [TextNode(text=f"fact number {i}") for i in range(50)]
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=embed_model)
    engine = two_stage_query_engine(index, MockLLM(), reranker=Qwen3Rerank(model="tiny"))
    engine.retrieve(QueryBundle("Is it loaded?"))
    begun = threading.Semaphore(0)
    """
    + COUNT_ERRORS
)


def run(folder: Path, *parts: str, timeout: float = 150) -> subprocess.CompletedProcess[str]:
    """Run a script that leaves with work queued."""
    code = "".join(map(textwrap.dedent, parts))
    return subprocess.run(
        [sys.executable, "-c", code, str(folder / "exit.db")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def leave(folder: Path, *parts: str) -> list[str]:
    """What such a script printed."""
    done = run(folder, *parts)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_milvus_lite_alone_hangs(tmp_path):
    """If this fails, Lite is mended, and `qwen3_core.engine.shutdown` may have become needless."""
    done = run(
        tmp_path,
        """
        import faulthandler, sys
        from concurrent.futures import ThreadPoolExecutor
        from pymilvus import MilvusClient

        client = MilvusClient(sys.argv[1])
        client.create_collection("facts", dimension=8)
        client.insert("facts", [{"id": i, "vector": [float(i)] * 8} for i in range(200)])
        pool = ThreadPoolExecutor(4)
        futures = [
            pool.submit(client.search, "facts", [[1.0] * 8], limit=10) for _ in range(20_000)
        ]
        futures[0].result()
        faulthandler.dump_traceback_later(10, exit=True)
        print("leaving", futures[-1].done())
        """,
    )
    assert done.stdout == "leaving False\n"
    assert done.returncode == 1, "it ended by itself"
    assert "Timeout (0:00:10)!" in done.stderr


def test_queued_embeddings_do_not_delay_the_exit_and_their_searches_never_start(tmp_path):
    printed = leave(
        tmp_path,
        START,
        """
        texts = ["some text to embed " * 20] * 20_000
        begun = threading.Semaphore(0)

        def search(i):
            begun.release()
            vectors = embedder.embed_documents(texts)
            return client.search("facts", vectors[:1], limit=10)

        futures = [pool.submit(search, i) for i in range(100)]
        for _ in range(THREADS):
            begun.acquire()
        leave(futures)
        """,
    )
    assert printed == ["leaving True", "{'EngineClosedError': 100}"]


SLOW_LANGCHAIN = """
    fast = Milvus._collection_search

    def slow(*args, **kwargs):
        begun.release()
        while not worker._exiting:
            time.sleep(0.01)
        return fast(*args, **kwargs)

    Milvus._collection_search = slow
"""

SLOW_LLAMA_INDEX = """
    fast = MilvusVectorStore.query

    def slow(*args, **kwargs):
        begun.release()
        while not worker._exiting:
            time.sleep(0.01)
        return fast(*args, **kwargs)

    MilvusVectorStore.query = slow
"""

QUEUE = """
    pool = ThreadPoolExecutor(4)
    futures = [pool.submit({call}, query) for query in QUERIES]
    for _ in range(4):  # four searches are on their way to Lite
        begun.acquire()
    leave(futures)
"""


@pytest.mark.parametrize(
    "parts",
    [
        (LANGCHAIN, SLOW_LANGCHAIN, QUEUE.format(call="retriever.invoke")),
        (LLAMA_INDEX, SLOW_LLAMA_INDEX, QUEUE.format(call="engine.retrieve")),
        (LLAMA_INDEX, SLOW_LLAMA_INDEX, QUEUE.format(call="engine.query")),
    ],
    ids=["langchain", "llama_index-retrieve", "llama_index-query"],
)
def test_queued_two_stage_searches_end_with_the_interpreter(tmp_path, parts):
    printed = leave(tmp_path, *parts)
    assert printed == ["leaving True", "{'EngineClosedError': 200}"]


@pytest.mark.parametrize("call", ["retriever.batch(QUERIES)", "asyncio.run(abatch())"])
def test_batches_in_a_thread_end_with_the_interpreter(tmp_path, call):
    printed = leave(
        tmp_path,
        LANGCHAIN,
        """
        async def abatch():
            return await retriever.abatch(QUERIES)

        run = Encoder.run

        def noted(self, pack):
            begun.release()
            return run(self, pack)

        Encoder.run = noted
        pool = ThreadPoolExecutor(1)
        futures = [pool.submit(lambda: CALL)]
        begun.acquire()  # of many passes, the first has begun
        leave(futures)
        """.replace("CALL", call),
    )
    assert printed[0] == "leaving True"
    # Python's own, "cannot schedule new futures", where the batch was still being queued.
    assert printed[1] in ("{'EngineClosedError': 1}", "{'RuntimeError': 1}")


def test_an_executor_that_is_shut_down_first_ends_at_once(tmp_path):
    printed = leave(
        tmp_path,
        START,
        """
        def search(i):
            vectors = embedder.embed_queries([f"What is fact {i}?"])
            return len(client.search("facts", vectors, limit=10)[0])

        futures = [pool.submit(search, i) for i in range(2_000)]
        futures[0].result()
        pool.shutdown(cancel_futures=True)
        found = [f.result() for f in futures if not f.cancelled()]
        print(set(found), len(found) < len(futures))
        """,
    )
    assert printed == ["{10} True"]


@pytest.mark.parametrize("released", [True, False])
def test_the_interpreter_waits_for_a_worker_that_is_in_torch(tmp_path, released):
    """A thread that came back from torch while Python finalises would end in abort()."""
    done = run(
        tmp_path,
        f"""
        import threading
        import torch
        from qwen3_core import Embedder

        def compute():
            in_torch.set()
            for _ in range(300):
                torch.rand(300, 300) @ torch.rand(300, 300)

        class Weights:
            def __del__(self):  # freed by the worker's thread, as the model is
                compute()
                print("freed", flush=True)

        in_torch = threading.Event()
        embedder = Embedder("tiny")
        embedder.embed_queries(["warm up"])
        embedder.engine.encoder.more = Weights()
        if {released}:
            del embedder
        else:
            embedder.engine.encoder.run = lambda pack: compute()
            threading.Thread(target=embedder.embed_queries, args=(["?"],), daemon=True).start()
        in_torch.wait()
        print("leaving", flush=True)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("leaving\n")
    assert ("freed" in done.stdout) is released


def test_a_call_that_begins_when_the_interpreter_exits_is_refused(tmp_path):
    printed = leave(
        tmp_path,
        """
        import atexit
        from qwen3_core import Embedder, EngineClosedError

        def too_late():
            try:
                embedder.embed_queries(["too late"])
            except EngineClosedError as error:
                print(error)

        atexit.register(too_late)
        embedder = Embedder("tiny")
        embedder.embed_queries(["in time"])
        """,
    )
    assert printed == ["the interpreter is exiting: the engine of 'tiny' is closed"]
