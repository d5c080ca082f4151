"""Signals at random moments, and clocks that jump: a result or an end, never a hang."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from qwen3_core import Embedder, Reranker
from tests.conftest import ROOT

TEXTS = [f"Fact {i}: segments are sealed, then flushed. " * (1 + i % 7) for i in range(60)]


@pytest.mark.parametrize("jump", [1e9, -1e9])
def test_a_clock_that_jumps_moves_no_deadline(monkeypatch, jump):
    """Deadlines are of the monotonic clock; the wall clock may be set at any time."""
    embedder = Embedder("tiny", dtype="float32", timeout=1e6)
    reranker = Reranker("tiny", dtype="float32", timeout=1e6)
    vectors, scores = embedder.embed_documents(TEXTS), reranker.score(TEXTS, "What is flushed?")
    wall, calls = time.time, iter(range(10**9))

    def jumping():
        return wall() + jump * (next(calls) % 2)

    monkeypatch.setattr(time, "time", jumping)
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), vectors, atol=1e-5)
    np.testing.assert_allclose(reranker.score(TEXTS, "What is flushed?"), scores, atol=1e-4)
    stats = embedder.stats()
    assert 0 <= stats.wait_time < abs(jump) / 2
    assert 0 <= stats.compute_time < abs(jump) / 2


CODE = """
    import sys
    import numpy as np
    from qwen3_core import Embedder, Reranker

    texts = [f"Fact {i}: segments are sealed, then flushed. " * (1 + i % 7) for i in range(60)]
    print("begun", flush=True)
    settings = {"dtype": "float32", "pack_tokens": 64}
    embedder, reranker = Embedder("tiny", **settings), Reranker("tiny", **settings)
    expected = embedder.embed_documents(texts), reranker.score(texts, "What?")
    print("loaded", flush=True)
    while True:
        found = embedder.embed_documents(texts), reranker.score(texts, "What?")
        if not all(np.allclose(a, b, atol=1e-4) for a, b in zip(found, expected)):
            sys.exit("a wrong answer")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["while it loads", "while it computes"])
def test_a_signal_at_a_random_moment_ends_the_process(number, moment):
    dice = random.Random(f"{number} {moment}")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CODE)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    until = "begun\n" if moment == "while it loads" else "loaded\n"
    while process.stdout.readline() != until:
        assert process.poll() is None, process.communicate()[1]
    time.sleep(dice.uniform(0, 1))
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == -number, errors
    assert "Traceback" not in errors
