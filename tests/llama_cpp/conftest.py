"""Real llama.cpp servers with the bundled pair, if installed (tools/setup_llama_cpp.py)."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.conftest import LONG, ROOT, TINY, free_port

sys.path.insert(0, str(ROOT / "tools"))

from setup_llama_cpp import FOLDER

PYTHON = Path(os.environ.get("QWEN3_LLAMA_CPP", FOLDER / "bin" / "python"))
START = 120
"""Seconds that all servers together may take to start; 2 on an idle machine."""


@dataclass
class LlamaServer:
    """One server, running."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def wait(self, deadline: float) -> None:
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        pytest.fail(f"llama.cpp did not start:\n{self.log.read_text(errors='replace')[-3000:]}")


def _start(file: Path, pooling: str, context: int) -> LlamaServer:
    port = free_port()
    script = ROOT / "tools" / "llama_cpp_server.py"
    command = [str(PYTHON), str(script), str(file), pooling, str(port), str(context)]
    command += ["--float32"]
    path = file.with_suffix(".log")
    with path.open("wb") as log:
        return LlamaServer(subprocess.Popen(command, stdout=log, stderr=log), port, path)


@pytest.fixture(scope="session")
def servers(
    long_pair: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, LlamaServer]]:
    """The servers "embedding", "no eos", "reranker" and "no template" (a reranker too)."""
    if not PYTHON.exists():
        pytest.skip(f"no llama.cpp at {PYTHON}: run tools/setup_llama_cpp.py")
    conversions = {
        "embedding": (long_pair["embedding"], "last", LONG, []),
        "no eos": (TINY / "embedding", "last", 2048, ["--no-eos"]),
        "reranker": (long_pair["reranker"], "rank", LONG, []),
        "no template": (long_pair["reranker"], "rank", LONG, ["--no-template"]),
    }
    files = tmp_path_factory.mktemp("gguf")
    running: dict[str, LlamaServer] = {}
    try:
        for name, (folder, pooling, context, options) in conversions.items():
            file = files / f"{name.replace(' ', '-')}.gguf"
            script = str(ROOT / "tools" / "convert_to_gguf.py")
            command = [str(PYTHON), script, str(folder), str(file), *options]
            subprocess.run(command, check=True)
            running[name] = _start(file, pooling, context)
        deadline = time.monotonic() + START
        for server in running.values():
            server.wait(deadline)
        yield running
    finally:
        for server in running.values():
            server.process.kill()
            server.process.wait()
