"""A standalone Milvus server from tools/setup_milvus.py, on a port and in a folder of its own."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT, free_port

sys.path.insert(0, str(ROOT / "tools"))

from setup_milvus import FOLDER

INSTALLED = Path(os.environ.get("QWEN3_MILVUS", FOLDER))
START = 120
"""Seconds that the server may take to start; about 6 on an idle machine."""


@dataclass
class MilvusServer:
    """A server that can be killed and started again with its data on its port."""

    data: Path
    time_to_live: int = 30
    """Seconds after which a server that was killed is given up, and its successor serves."""
    health: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        config = _starter().MilvusServerConfig(data_dir=str(self.data))
        # Its own search for free ports tries loopback alone, where not all of them are bound.
        items = config.configurable_items
        config.update(**{name: free_port() for name in items if name.endswith("_port")})
        config.resolve()
        self.uri = f"http://127.0.0.1:{config.get('proxy_port')}"
        # The etcd inside would listen on 2379 and 2380, whatever the rest is told.
        client = f"http://127.0.0.1:{config.get('etcd_port')}"
        peer = f"http://127.0.0.1:{free_port()}"
        etcd = {
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        self.etcd.write_text(json.dumps(etcd))  # which is YAML too

    @property
    def etcd(self) -> Path:
        return self.data / "configs" / "etcd.yaml"

    def start(self) -> None:
        env = os.environ | {
            "COMMON_SESSION_TTL": str(self.time_to_live),
            "DEPLOY_MODE": "STANDALONE",
            "ETCD_CONFIG_PATH": str(self.etcd),
            "METRICS_PORT": str(self.health),
            "MILVUS_RUN_DIR": str(self.data / "run"),
            "LD_LIBRARY_PATH": str(INSTALLED / "bin"),
        }
        command = [str(INSTALLED / "bin" / "milvus"), "run", "standalone"]
        with (self.data / "output.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.data, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if "OK" in httpx.get(f"http://127.0.0.1:{self.health}/healthz").text:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        log = (self.data / "output.log").read_text(errors="replace")
        pytest.fail(f"Milvus did not start:\n{log[-3000:]}")

    def kill(self) -> None:
        """SIGKILL: it writes nothing more."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _starter() -> ModuleType:
    """The wheel's module "milvus", which writes the server's configuration."""
    path = INSTALLED / "package" / "milvus" / "__init__.py"
    spec: Any = importlib.util.spec_from_file_location("_milvus_starter", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
