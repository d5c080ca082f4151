"""The demo moves to servers by one argument for each, and finds the same."""

import re
import subprocess
import sys

from tests.conftest import ROOT


def found(*arguments: str) -> list[str]:
    """Title and file of the passages that the LLM would read, through both frameworks."""
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), *arguments]
    question = ("--question", "How is data stored in Milvus?")
    done = subprocess.run([*command, *question], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return re.findall(r"^ +\[\d\] (.+ \(\S+\.md\))", done.stdout, re.MULTILINE)


def test_base_url_changes_nothing_else(servers, tmp_path):
    # In float32, as the servers compute: two passages' scores lie closer than bfloat16 tells apart.
    local = found("--uri", str(tmp_path / "local.db"), "--dtype", "float32")
    urls = ["--base-url", servers["embedding"].url, "--base-url", servers["reranker"].url]
    assert len(local) == 6
    assert found("--uri", str(tmp_path / "remote.db"), *urls) == local
