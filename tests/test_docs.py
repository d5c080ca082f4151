"""The pages under docs: their Python runs as it stands, up to a server that it names."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


def blocks(page: str) -> list[str]:
    """The Python blocks of a page."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


LINKS = [
    pytest.param(path, target, id=f"{path.stem}-{target}")
    for path in [
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
    ]
    for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text("utf-8"))
]


@pytest.mark.parametrize("block", blocks("servers.md"))
def test_a_block_about_servers_runs(block):
    names: dict[str, object] = {}
    exec("from llama_index_qwen3 import Qwen3Rerank", names)  # what an earlier block imported
    exec(compile(block, "docs", "exec"), names)
    components = [name for name in names if name in ("embeddings", "embed_model", "reranker")]
    assert components
    assert all("8000" in repr(names[c]) or "8001" in repr(names[c]) for c in components)


def test_the_page_about_milvus_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("milvus.md"):
        exec(compile(block, "docs/milvus.md", "exec"), names)
    assert len(names["found"]) == 2  # type: ignore[arg-type]
    assert names["found_by_llama_index"]


def test_the_page_about_evaluation_runs_from_top_to_bottom(tmp_path, monkeypatch):
    pytest.importorskip("pytrec_eval", reason="the extra 'evaluation' is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "examples" / "corpus")
    names: dict[str, Any] = {}
    for block in blocks("evaluation.md"):
        exec(compile(block, "docs/evaluation.md", "exec"), names)
    assert (tmp_path / "evaluation.html").is_file()
    engine = names["report"].systems[-1]
    assert engine.name == "my engine"
    assert engine.unmatched == 0
    assert engine.metrics["nDCG@10"].mean > 0.3


@pytest.mark.parametrize(("path", "target"), LINKS)
def test_link_leads_somewhere(path: Path, target: str):
    assert (path.parent / target).exists()
