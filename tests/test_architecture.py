"""The drawing of the architecture is that of the contracts, which `make lint` checks."""

import tomllib

import pytest

from tests.conftest import ROOT

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "tools"))
    import draw_architecture


def test_the_drawing_shows_the_contracts():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    drawing = draw_architecture.draw(settings["tool"]["importlinter"]["contracts"])
    assert (ROOT / "docs" / "images" / "architecture.svg").read_text("utf-8") == drawing


def test_every_module_is_explained():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    folders = ("qwen3_core", "qwen3_retrieval", "qwen3_core/model", "qwen3_core/engine")
    modules = {
        path.stem
        for folder in (*folders, "qwen3_core/milvus", "qwen3_core/model/description")
        for path in (ROOT / folder).iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    assert {name for name in modules if f"`{name}`" not in page} == set()
