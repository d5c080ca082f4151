"""Real vLLM servers with the bundled pair, where vLLM is installed (tools/setup_vllm.py)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from qwen3_core.remote import TEMPLATE_FILE
from qwen3_core.remote.checks import HF_OVERRIDES
from tests.conftest import LONG, ROOT, free_port

sys.path.insert(0, str(ROOT / "tools"))

from setup_vllm import FOLDER

VLLM = Path(os.environ.get("QWEN3_VLLM", FOLDER / "bin" / "vllm"))
START = 400
"""Seconds that a server may take to start; about 30 on an idle machine."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>\\n' -}}{%- endfor -%}{{- '<|im_start|>assistant\\n' -}}"
)


@dataclass
class VllmServer:
    """One `vllm serve`, which can be killed and started again on its port."""

    arguments: list[str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        command = [str(VLLM), "serve", *self.arguments, "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--enforce-eager", "--dtype", "float32"]
        quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | quiet
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(self.url.removesuffix("/v1") + "/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        pytest.fail(f"vLLM did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        """SIGKILL to the server and its engine."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def servers(
    long_pair: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, VllmServer]]:
    """The servers "embedding", "reranker", "no template" (a reranker too) and "chat"."""
    if not VLLM.exists():
        pytest.skip(f"no vLLM at {VLLM}: run tools/setup_vllm.py, or set QWEN3_VLLM")
    logs = tmp_path_factory.mktemp("vllm")
    template = logs / "chat.jinja"
    template.write_text(CHAT_TEMPLATE)
    names = ["--served-model-name", "tiny", "long", "--max-model-len", str(LONG)]
    pooling = [*names, "--runner", "pooling"]
    overrides = ["--hf-overrides", HF_OVERRIDES]
    framed = ["--chat-template", str(TEMPLATE_FILE)]
    commands = {
        "embedding": [str(long_pair["embedding"]), *pooling],
        "reranker": [str(long_pair["reranker"]), *pooling, *overrides, *framed],
        "no template": [str(long_pair["reranker"]), *pooling, *overrides],
        "chat": [str(long_pair["reranker"]), *names, "--chat-template", str(template)],
    }
    running = {
        name: VllmServer(arguments, logs / f"{name}.log") for name, arguments in commands.items()
    }
    try:
        for server in running.values():
            server.start()
        for server in running.values():
            server.wait()
        yield running
    finally:
        for server in running.values():
            server.kill()
