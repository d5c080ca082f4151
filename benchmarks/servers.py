"""Systems that `speed.py` compares and that run in environments of their own.

vLLM and llama.cpp are servers, called through our client. OpenVINO and ONNX Runtime run in
benchmarks/exported.py, called over its standard input and output.
"""

import json
import os
import subprocess
import sys
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.checkpoints import ROOT
from benchmarks.machine import free_port
from benchmarks.peers import BATCH, ManyCallers, OurClasses, query_prompt, rerank_prompts
from benchmarks.process import Checkpoints
from qwen3_core import RemoteEmbedder, RemoteReranker
from qwen3_core.remote import TEMPLATE_FILE
from qwen3_core.remote import Server as RemoteServer
from qwen3_core.remote.checks import HF_OVERRIDES

START = 300
"""Seconds that a server may take to start."""

sys.path.insert(0, str(ROOT / "tools"))


class Server(OurClasses):
    """A server of another project; it starts one for each model, when the model is first needed."""

    server: Literal["vllm", "llama.cpp"]

    def __init__(self, given: Checkpoints) -> None:
        self._given = given
        self._processes: list[subprocess.Popen[bytes]] = []
        # Random weights would fail the self-check.
        self._options: dict[str, Any] = {
            "timeout": 3600,
            "server": RemoteServer(self.server, self_check=False),
        }

    @cached_property
    def _embedder(self) -> RemoteEmbedder:  # type: ignore[override]
        name = self._given.embedding
        return RemoteEmbedder(name, base_url=self._start(name, reranks=False), **self._options)

    @cached_property
    def _reranker(self) -> RemoteReranker:  # type: ignore[override]
        name = self._given.reranker
        return RemoteReranker(name, base_url=self._start(name, reranks=True), **self._options)

    def _command(self, folder: str, port: int, *, reranks: bool) -> list[str]:
        raise NotImplementedError

    def _start(self, folder: str, *, reranks: bool) -> str:
        import httpx

        port = free_port()
        command = self._command(folder, port, reranks=reranks)
        env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
        env.pop("OMP_NUM_THREADS", None)
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._processes.append(process)
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    return f"http://127.0.0.1:{port}/v1"
            except httpx.TransportError:
                time.sleep(0.5)
        msg = f"the {self.server} server did not start: {' '.join(command)}"
        raise RuntimeError(msg)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()


class Vllm(Server):
    """vLLM's CPU build with prefix caching (`make vllm` installs it)."""

    server = "vllm"

    def __init__(self, given: Checkpoints) -> None:
        from setup_vllm import FOLDER, VERSION

        super().__init__(given)
        self.version = VERSION
        self._program = installed(FOLDER / "bin" / "vllm", "vllm")

    def _command(self, folder: str, port: int, *, reranks: bool) -> list[str]:
        command = [self._program, "serve", folder, "--runner", "pooling"]
        if reranks:
            command += ["--hf-overrides", HF_OVERRIDES, "--chat-template", str(TEMPLATE_FILE)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", self._given.dtype]
        return [*command, "--max-model-len", "8192", "--enable-prefix-caching"]


class LlamaCpp(Server):
    """llama.cpp's server with weights in Q8_0 (`make llama-cpp` installs it)."""

    server = "llama.cpp"

    def __init__(self, given: Checkpoints) -> None:
        from setup_llama_cpp import FOLDER, VERSION

        super().__init__(given)
        self.version = VERSION
        self._python = installed(FOLDER / "bin" / "python", "llama-cpp")

    def _command(self, folder: str, port: int, *, reranks: bool) -> list[str]:
        file = f"{folder}-q8_0.gguf"
        if not Path(file).exists():
            convert = str(ROOT / "tools" / "convert_to_gguf.py")
            subprocess.run([self._python, convert, folder, file, "--q8-0"], check=True)
        serve = str(ROOT / "tools" / "llama_cpp_server.py")
        pooling = "rank" if reranks else "last"
        command = [self._python, serve, file, pooling, str(port), "8192"]
        return [*command, "--threads", str(os.cpu_count())]


def installed(program: Path, target: str) -> str:
    """The path of a program, once it is known that this `make` target has installed it."""
    if not program.exists():
        msg = f"not installed: run `make {target}`"
        raise RuntimeError(msg)
    return str(program)


class Exported(ManyCallers):
    """A system that runs an exported model in another environment; one process for each model."""

    runtime: Literal["openvino", "onnx"]
    int8 = False
    batch = BATCH

    def __init__(self, given: Checkpoints) -> None:
        self._given = given
        self.lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []
        self._python = installed(self._folder() / "bin" / "python", self.runtime)

    def _folder(self) -> Path:
        raise NotImplementedError

    @cached_property
    def _embedder(self) -> "subprocess.Popen[str]":
        return self._start("embedding", self._given.embedding)

    @cached_property
    def _reranker(self) -> "subprocess.Popen[str]":
        return self._start("reranker", self._given.reranker)

    def _start(self, kind: str, folder: str) -> "subprocess.Popen[str]":
        precision = "int8" if self.int8 else self._given.dtype
        script = str(ROOT / "benchmarks" / "exported.py")
        process = subprocess.Popen(
            [self._python, script, self.runtime, kind, folder, precision, str(self.batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def _ask(self, process: "subprocess.Popen[str]", texts: list[str]) -> np.ndarray:
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(texts), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            msg = f"{self.runtime}'s process ended"
            raise RuntimeError(msg)
        return np.array(json.loads(answer), dtype=np.float32)

    def rerank(self, query: str, documents: list[str]) -> np.ndarray:
        return self._ask(self._reranker, rerank_prompts(query, documents))

    def embed(self, documents: list[str]) -> np.ndarray:
        return self._ask(self._embedder, documents)

    def query(self, text: str) -> np.ndarray:
        vector: np.ndarray = self._ask(self._embedder, [query_prompt(text)])[0]
        return vector

    def close(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait()


class OpenVino(Exported):
    """OpenVINO through optimum-intel, in batches of 32 (`make openvino` installs it)."""

    runtime = "openvino"

    def _folder(self) -> Path:
        from setup_openvino import FOLDER, OPENVINO, OPTIMUM

        self.version = f"{OPENVINO}, optimum-intel {OPTIMUM}"
        return FOLDER


class OpenVinoOneByOne(OpenVino):
    """The same in batches of one, without padding."""

    batch = 1


class OpenVinoInt8(OpenVino):
    """The same with weights of 8 bits and dynamic quantisation of activations."""

    int8 = True


class OpenVinoInt8OneByOne(OpenVinoInt8):
    """The same in batches of one, without padding."""

    batch = 1


class OnnxInt8(Exported):
    """ONNX Runtime through optimum-onnx, quantised dynamically, in batches of 32 (`make onnx`)."""

    runtime = "onnx"
    int8 = True

    def _folder(self) -> Path:
        from setup_onnx import FOLDER, ONNX_RUNTIME, OPTIMUM

        self.version = f"{ONNX_RUNTIME}, optimum-onnx {OPTIMUM}"
        return FOLDER


class OnnxInt8OneByOne(OnnxInt8):
    """The same in batches of one, without padding."""

    batch = 1
