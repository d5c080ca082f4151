"""An example moves to a server by one argument for each server, and finds the same."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def sources(script: str, *arguments: str) -> list[str]:
    """Title and file of the passages that the LLM would read."""
    command = [sys.executable, str(ROOT / "examples" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return re.findall(r"^ +\[\d\] (.+ \(\S+\.md\))", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("script", ["langchain_rag.py", "llama_index_rag.py"])
def test_base_url_changes_nothing_else(servers, tmp_path, script):
    # In float32, as the servers compute: two passages' scores lie closer than bfloat16 tells apart.
    local = sources(script, "--uri", str(tmp_path / "local.db"), "--dtype", "float32")
    urls = ["--base-url", servers["embedding"].url, "--base-url", servers["reranker"].url]
    assert len(local) == 3
    assert sources(script, "--uri", str(tmp_path / "remote.db"), *urls) == local
