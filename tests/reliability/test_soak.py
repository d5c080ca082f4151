"""The short form of `benchmarks/load.py --only soak`; how fast it is belongs to the benchmark."""

import dataclasses
import sys

import pytest

from benchmarks.callers import Callers
from benchmarks.load import SOAK_PARTS, soak
from benchmarks.systems import Pair, Shared
from benchmarks.workload import Sizes, Workload
from tests.conftest import TINY

SIZES = Sizes(query=(3, 12), passage=(5, 40), passages=(1, 6), document=(10, 90), documents=(1, 12))


@pytest.fixture
def shared(tmp_path):
    """The bundled pair under a name of its own, so that its engines are not shared."""
    (tmp_path / "pair").symlink_to(TINY)
    folder = tmp_path / "pair"
    return Shared(Pair(str(folder / "embedding"), str(folder / "reranker"), "float32"))


def test_mixed_load_leaves_nothing_behind(shared):
    workload = Workload(SIZES, each=20)
    workload.answer_serially(shared)
    parts = soak(Callers(workload, threads=8, coroutines=24), shared, 16, 1e-5)
    assert len(parts) == SOAK_PARTS
    for part in parts:
        assert part.requests > 0
        assert part.cpu > 0
        assert (part.wrong, part.lost, part.doubled, part.failed) == (0, 0, 0, 0)
    settled = parts[2:]
    # Threads and files of tests that ran before may still be going away; none may come.
    assert settled[-1].threads <= settled[0].threads
    if sys.platform == "linux":
        assert settled[-1].files <= settled[0].files
        # The allocator of a run this short is not settled yet; a leak of answers would be more.
        assert settled[-1].memory < settled[0].memory * 1.1
    assert dataclasses.asdict(parts[0]).keys() >= {"rate", "cpu", "query"}
