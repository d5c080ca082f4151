"""tools/scale_table.py: the arithmetic, and that docs/scale.md holds what it prints."""

import importlib

import pytest

from tests.conftest import ROOT


@pytest.fixture
def scale(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("scale_table")


def test_the_page_holds_the_table(scale):
    assert scale.table(scale.Figures()) in (ROOT / "docs" / "scale.md").read_text("utf-8")


def test_arithmetic(scale):
    figures = scale.Figures(tokens=360, rate=1000, workers=10, price=2)
    assert scale.hours(10**6, figures) == pytest.approx(10)
    assert scale.dollars(10**6, figures) == pytest.approx(200)
    assert scale.vector_bytes(10**6, 1024) == 4_096_000_000
    assert scale.hnsw_bytes(10, 256, scale.Figures(links=16)) == 10 * (1024 + 128)
    half_full = scale.Figures(node_bytes=100, fill=0.5)
    assert [scale.nodes(size, half_full) for size in (1, 50, 51)] == [1, 1, 2]
    assert [scale.human(size) for size in (12, 4.1e9, 4.1e15)] == ["12 B", "4.1 GB", "4.1 PB"]
