"""Leaving the interpreter while an executor still holds embeddings and Milvus Lite searches.

Milvus Lite alone, without this package, hangs when the interpreter exits while a ThreadPoolExecutor
holds queued searches (pymilvus 3.0, milvus-lite 3.1): `concurrent.futures` shuts every executor
down first, that of Lite's own server among them, whose thread ends with "cannot schedule new
futures after shutdown"; then it waits for the searches, which try to connect again and again. A
search that is under way at that moment is enough. Nothing that is queued for an engine adds to
that: its calls fail at once, and what would have searched with their vectors never does. Whoever
searches in an executor should shut it down before the program ends.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.conftest import ROOT

START = """
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


def leave(folder: Path, work: str) -> list[str]:
    """Run a script that leaves with work queued; returns what it printed."""
    code = textwrap.dedent(START) + textwrap.dedent(work)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "exit.db")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_queued_embeddings_do_not_delay_the_exit_and_their_searches_never_start(tmp_path):
    printed = leave(
        tmp_path,
        """
        import atexit

        texts = ["some text to embed " * 20] * 20_000
        begun = threading.Semaphore(0)

        def search(i):
            begun.release()
            vectors = embedder.embed_documents(texts)
            return client.search("facts", vectors[:1], limit=10)

        futures = [pool.submit(search, i) for i in range(100)]
        for _ in range(THREADS):
            begun.acquire()
        errors = lambda: {type(f.exception()).__name__ for f in futures}
        atexit.register(lambda: print(*errors()))
        print("leaving", not any(f.done() for f in futures))
        """,
    )
    assert printed == ["leaving True", "EngineClosedError"]


def test_an_executor_that_is_shut_down_first_ends_at_once(tmp_path):
    printed = leave(
        tmp_path,
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
