"""The notebooks run from top to bottom, and are saved as their pages say, with what they print."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import ROOT

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "tools"))
    import make_notebooks


def printed(cell: Any) -> str:
    """What a cell says, without fractions and times: these differ between processors."""
    texts = [one.get("text") or one.get("data", {}).get("text/plain", "") for one in cell.outputs]
    return re.sub(r" *-?\d+\.\d+| *\d+(?= ms)", " #", "".join(texts))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", make_notebooks.sources(), ids=lambda page: page.stem)
def test_notebook(page: Path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    saved = nbformat.read(page.with_suffix(".ipynb"), as_version=4)
    made = make_notebooks.convert(page)
    assert [c.source for c in made.cells] == [c.source for c in saved.cells], "make notebooks"

    code = [c for c in make_notebooks.execute(made).cells if c.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in code) >= 3
    assert [printed(cell) for cell in code] == [
        printed(cell) for cell in saved.cells if cell.cell_type == "code"
    ]
