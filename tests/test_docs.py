"""The pages under docs: their Python runs as it stands, up to the server that it names."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

BLOCKS = [
    pytest.param(block, id=f"{path.stem}-{i}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for i, block in enumerate(
        re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    )
]
LINKS = [
    pytest.param(path, target, id=f"{path.stem}-{target}")
    for path in [
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
    ]
    for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text("utf-8"))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block):
    names: dict[str, object] = {}
    exec("from llama_index_qwen3 import Qwen3Rerank", names)  # what an earlier block imported
    exec(compile(block, "docs", "exec"), names)
    components = [name for name in names if name in ("embeddings", "embed_model", "reranker")]
    assert components
    assert all("8000" in repr(names[c]) or "8001" in repr(names[c]) for c in components)


@pytest.mark.parametrize(("path", "target"), LINKS)
def test_link_leads_somewhere(path: Path, target: str):
    assert (path.parent / target).exists()
