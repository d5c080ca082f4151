"""The README's code runs as it stands, with the bundled models in place of the published ones."""

import re

import pytest

from tests.conftest import ROOT
from tests.openai_server import OpenAIServer

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


def test_there_are_blocks_for_both_frameworks():
    assert ["langchain_qwen3" in block for block in BLOCKS] == [True, False, False, False]
    assert ["llama_index_qwen3" in block for block in BLOCKS] == [False, False, True, False]


# The second block of each framework goes on where the first ends.
SCRIPTS = {"langchain": "".join(BLOCKS[:2]), "llama_index": "".join(BLOCKS[2:])}


@pytest.mark.parametrize("block", SCRIPTS.values(), ids=SCRIPTS)
def test_block_runs(block, tmp_path, monkeypatch, capsys):
    code = re.sub(r"Qwen/Qwen3-(Embedding|Reranker)-0\.6B", "tiny", block)
    assert code.count('"tiny"') == 2
    monkeypatch.chdir(tmp_path)
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        exec(compile(code, "README.md", "exec"), {})
    assert "[1]" in capsys.readouterr().out
    assert "Milvus keeps inserted data" in str(server.requests)
