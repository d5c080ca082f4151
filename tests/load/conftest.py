"""The bundled pair under names of its own, so that these tests have engines to themselves."""

from pathlib import Path

import pytest

from benchmarks.systems import Pair, Shared
from tests.conftest import TINY


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Folders that hold the bundled pair, and float32, in which answers are comparable."""
    for kind in ("embedding", "reranker"):
        (tmp_path / kind).symlink_to(TINY / kind)
    return Pair(str(tmp_path / "embedding"), str(tmp_path / "reranker"), "float32")


@pytest.fixture
def shared(pair: Pair) -> Shared:
    """An embedder and a reranker, loaded."""
    shared = Shared(pair)
    shared.embedder.embed_queries(["load it"])
    shared.reranker.score(["too"], "load it")
    return shared
