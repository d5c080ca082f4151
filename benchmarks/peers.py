"""The systems that `speed.py` compares, each in a process of its own with memory of its own.

A system offers some of `rerank(query, documents)`, `embed(documents)` and `query(text)`, which
return log-odds (n,), vectors (n, hidden_size) and one vector (hidden_size,).
"""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.checkpoints import ROOT
from benchmarks.machine import free_port
from qwen3_core import Embedder, RemoteEmbedder, RemoteReranker, Reranker
from qwen3_core.model.linear import projected
from qwen3_core.prompts import RERANK_SUFFIX, TASKS, rerank_document, rerank_prefix
from qwen3_core.remote import TEMPLATE_FILE
from qwen3_core.remote import Server as RemoteServer
from qwen3_core.remote.checks import HF_OVERRIDES
from qwen3_core.settings import Dtype

TASK = TASKS["web_search"]
METHODS = ("rerank", "embed", "query", "index", "ask", "overhead")
"""Methods that a system may have."""

SERVER_START = 300
"""Seconds that a server may take to start."""

sys.path.insert(0, str(ROOT / "tools"))


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints that all systems load."""

    embedding: str
    reranker: str
    dtype: Dtype


class OurClasses:
    """Calls an embedder and a reranker of this package, local or remote."""

    _embedder: Embedder | RemoteEmbedder
    _reranker: Reranker | RemoteReranker

    def rerank(self, query: str, documents: list[str]) -> np.ndarray:
        return self._reranker.score(documents, query)

    def embed(self, documents: list[str]) -> np.ndarray:
        return self._embedder.embed_documents(documents)

    def query(self, text: str) -> np.ndarray:
        vector: np.ndarray = self._embedder.embed_queries([text])[0]
        return vector


class Ours(OurClasses):
    """This package."""

    def __init__(self, given: Checkpoints) -> None:
        self._embedder = Embedder(given.embedding, dtype=given.dtype, device="cpu")
        self._reranker = Reranker(given.reranker, dtype=given.dtype, device="cpu")


class OursInt8(Ours):
    """This package in 8-bit integers."""

    def __init__(self, given: Checkpoints) -> None:
        super().__init__(replace(given, dtype="int8"))


class WithoutPrefix:
    """This package without the prefix cache: the instruction is computed again for each query."""

    def __init__(self, given: Checkpoints) -> None:
        self._embedder = Embedder(given.embedding, dtype=given.dtype, device="cpu")

    def query(self, text: str) -> np.ndarray:
        self._embedder.engine.encoder.forget()
        vector: np.ndarray = self._embedder.embed_queries([text])[0]
        return vector


class Floor:
    """The bare weight products of the tokens that must be computed, and nothing else."""

    def __init__(self, given: Checkpoints) -> None:
        import torch

        self._torch = torch
        self._inputs: dict[tuple[int, int], Any] = {}
        self._embedder = Embedder(given.embedding, dtype=given.dtype, device="cpu").engine
        self._reranker = Reranker(given.reranker, dtype=given.dtype, device="cpu").engine

    def rerank(self, query: str, documents: list[str]) -> np.ndarray:
        tokenizer = self._reranker.tokenizer
        rows, _ = tokenizer.rerank_documents(documents, 8192)
        return self._run(len(tokenizer.rerank_prefix(TASK, query)) + sum(map(len, rows)))

    def embed(self, documents: list[str]) -> np.ndarray:
        rows, _ = self._embedder.tokenizer.embedding_documents(documents, 8192)
        return self._run(sum(map(len, rows)))

    def query(self, text: str) -> np.ndarray:
        return self.embed([f":{text}"])  # without the instruction, which is cached

    def _run(self, tokens: int) -> np.ndarray:
        """All layers' products, for blocks of rows as a forward pass takes them."""
        torch = self._torch
        model: Any = self._embedder.encoder.model
        config = model.config
        wide, heads = config.hidden_size, config.num_attention_heads * config.head_dim
        most = self._embedder.encoder.pack_tokens
        with torch.inference_mode():
            for count in [min(most, tokens - i) for i in range(0, tokens, most)]:
                for layer in model.layers:
                    attention, mlp = layer.self_attn, layer.mlp
                    projected(attention, self._input(count, wide))
                    attention.o_proj(self._input(count, heads))
                    mlp.gate_proj(self._input(count, wide))
                    mlp.up_proj(self._input(count, wide))
                    mlp.down_proj(self._input(count, config.intermediate_size))
        return np.empty(0)

    def _input(self, rows: int, width: int) -> Any:
        key = (rows, width)
        if key not in self._inputs:
            dtype = self._embedder.encoder.model.dtype
            self._inputs[key] = self._torch.randn(rows, width).to(dtype)
        return self._inputs[key]


class Published:
    """The models' published usage: one left-padded batch, for reranking logits of all tokens."""

    def __init__(self, given: Checkpoints) -> None:
        import torch
        from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        options: dict[str, Any] = {"dtype": getattr(torch, given.dtype)}
        load: Any = AutoTokenizer.from_pretrained
        self._tokenizers = [load(f, padding_side="left") for f in (given.embedding, given.reranker)]
        self._embedding: Any = AutoModel.from_pretrained(given.embedding, **options).eval()
        model: Any = AutoModelForCausalLM.from_pretrained(given.reranker, **options)
        self._reranker = model.eval()

    def rerank(self, query: str, documents: list[str]) -> np.ndarray:
        tokenizer = self._tokenizers[1]
        yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
        prefix = rerank_prefix(TASK, query)
        prompts = [prefix + rerank_document(d) + RERANK_SUFFIX for d in documents]
        batch = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
        with self._torch.inference_mode():
            logits = self._reranker(**batch).logits[:, -1].float()
        difference: np.ndarray = (logits[:, yes] - logits[:, no]).numpy()
        return difference

    def query(self, text: str) -> np.ndarray:
        prompt = f"Instruct: {TASK}\nQuery:{text}"
        batch = self._tokenizers[0]([prompt], padding=True, return_tensors="pt")
        with self._torch.inference_mode():
            state = self._embedding(**batch).last_hidden_state[0, -1].float()
            vector: np.ndarray = self._torch.nn.functional.normalize(state, dim=0).numpy()
        return vector


class SentenceTransformers:
    """sentence-transformers in its default batches of 32, as LangChain's classes call it."""

    def __init__(self, given: Checkpoints) -> None:
        from sentence_transformers import CrossEncoder, SentenceTransformer
        from torch.nn import Identity

        options: dict[str, Any] = {"device": "cpu", "model_kwargs": {"dtype": given.dtype}}
        self._embedder = SentenceTransformer(given.embedding, **options)
        self._reranker = CrossEncoder(
            given.reranker,
            activation_fn=Identity(),
            prompts={"web_search": TASK},
            default_prompt_name="web_search",
            **options,
        )

    def rerank(self, query: str, documents: list[str]) -> np.ndarray:
        pairs = [(query, document) for document in documents]
        scores: np.ndarray = self._reranker.predict(pairs, show_progress_bar=False)
        return scores

    def embed(self, documents: list[str]) -> np.ndarray:
        return np.asarray(self._embedder.encode_document(documents, show_progress_bar=False))

    def query(self, text: str) -> np.ndarray:
        return np.asarray(self._embedder.encode_query(text, show_progress_bar=False))


class OneByOne:
    """The same, one call per document: no padding."""

    def __init__(self, given: Checkpoints) -> None:
        from sentence_transformers import SentenceTransformer

        options: dict[str, Any] = {"device": "cpu", "model_kwargs": {"dtype": given.dtype}}
        self._embedder = SentenceTransformer(given.embedding, **options)

    def embed(self, documents: list[str]) -> np.ndarray:
        found = self._embedder.encode_document(documents, batch_size=1, show_progress_bar=False)
        return np.asarray(found)


class Server(OurClasses):
    """A server of another project, called through our client."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def _start(self, kind: str, command: list[str], port: int) -> str:
        import httpx

        env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
        env.pop("OMP_NUM_THREADS", None)
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._processes.append(process)
        deadline = time.monotonic() + SERVER_START
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    return f"http://127.0.0.1:{port}/v1"
            except httpx.TransportError:
                time.sleep(0.5)
        msg = f"the {kind} server did not start: {' '.join(command)}"
        raise RuntimeError(msg)

    def _ask(
        self,
        given: Checkpoints,
        server: Literal["vllm", "llama.cpp"],
        embedding: str,
        reranker: str,
    ) -> None:
        # Random weights would fail the self-check.
        options: dict[str, Any] = {"server": RemoteServer(server, self_check=False)}
        self._embedder = RemoteEmbedder(
            given.embedding, base_url=embedding, timeout=3600, **options
        )
        self._reranker = RemoteReranker(given.reranker, base_url=reranker, timeout=3600, **options)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()


class Vllm(Server):
    """vLLM's CPU build, two servers (`make vllm` installs it)."""

    def __init__(self, given: Checkpoints) -> None:
        super().__init__()
        from setup_vllm import FOLDER

        program = FOLDER / "bin" / "vllm"
        if not program.exists():
            raise FileNotFoundError(program)
        more = ["--hf-overrides", HF_OVERRIDES, "--chat-template", str(TEMPLATE_FILE)]
        urls = []
        servers: list[tuple[str, list[str]]] = [(given.embedding, []), (given.reranker, more)]
        for folder, options in servers:
            port = free_port()
            command = [str(program), "serve", folder, *options, "--runner", "pooling"]
            command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", given.dtype]
            command += ["--max-model-len", "8192", "--enable-prefix-caching"]
            urls.append(self._start("vLLM", command, port))
        self._ask(given, "vllm", *urls)


class LlamaCpp(Server):
    """llama.cpp's server with weights in Q8_0 (`make llama-cpp` installs it)."""

    def __init__(self, given: Checkpoints) -> None:
        super().__init__()
        from setup_llama_cpp import FOLDER

        python = str(FOLDER / "bin" / "python")
        if not Path(python).exists():
            raise FileNotFoundError(python)
        urls = []
        for folder, pooling in ((given.embedding, "last"), (given.reranker, "rank")):
            file, port = f"{folder}-q8_0.gguf", free_port()
            if not Path(file).exists():
                convert = str(ROOT / "tools" / "convert_to_gguf.py")
                subprocess.run([python, convert, folder, file, "--q8-0"], check=True)
            serve = str(ROOT / "tools" / "llama_cpp_server.py")
            threads = str(os.cpu_count())
            command = [python, serve, file, pooling, str(port), "8192", "--threads", threads]
            urls.append(self._start("llama.cpp", command, port))
        self._ask(given, "llama.cpp", *urls)


SYSTEMS: dict[str, Callable[[Checkpoints], Any]] = {
    "qwen3-retrieval": Ours,
    "qwen3-retrieval, int8": OursInt8,
    "without kept prefix": WithoutPrefix,
    "published code": Published,
    "sentence-transformers": SentenceTransformers,
    "sentence-transformers, one by one": OneByOne,
    "vLLM": Vllm,
    "llama.cpp Q8_0": LlamaCpp,
    "floor": Floor,
}


class Peer:
    """One system in a separate process, called over a pipe."""

    def __init__(self, system: Callable[[Checkpoints], Any], given: Checkpoints) -> None:
        """Start it.

        Args:
            system: Class of the system.
            given: What it loads.

        Raises:
            RuntimeError: If the system is not installed or cannot load the checkpoints.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, system, given), daemon=False)
        self._process.start()
        theirs.close()
        self.offers: set[str] = self._receive()

    def run(self, method: str, *arguments: Any) -> tuple[float, np.ndarray, float]:
        """Call a method of the system: seconds, its answer, and peak memory of the call in GiB.

        Raises:
            RuntimeError: If it fails, or its process has ended.
        """
        try:
            self._pipe.send((method, arguments))
        except BrokenPipeError:
            msg = "its process ended"
            raise RuntimeError(msg) from None
        seconds, answer, memory = self._receive()
        return seconds, answer, memory

    def close(self) -> None:
        """End the process if it still runs."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(None)
        self._process.join()

    def _receive(self) -> Any:
        try:
            outcome = self._pipe.recv()
        except EOFError:
            outcome = RuntimeError("its process ended")
        if isinstance(outcome, Exception):
            raise RuntimeError(str(outcome)) from outcome
        return outcome


def _serve(pipe: Connection, load: Callable[[Checkpoints], Any], given: Checkpoints) -> None:
    """Load a system and answer calls until None comes."""
    try:
        system = load(given)
    except Exception as error:  # noqa: BLE001 - the parent process reports it
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
        return
    pipe.send({name for name in METHODS if hasattr(system, name)})
    while (call := pipe.recv()) is not None:
        method, arguments = call
        _forget_peak()
        begin = time.perf_counter()
        try:
            answer = getattr(system, method)(*arguments)
            pipe.send((time.perf_counter() - begin, answer, _peak()))
        except Exception as error:  # noqa: BLE001 - the same
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
    if hasattr(system, "close"):
        system.close()


def _forget_peak() -> None:
    """Reset this process's peak memory, if Linux allows it."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Peak resident memory in GiB since then; nan if unknown."""
    if sys.platform != "linux":
        return float("nan")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    return float("nan")
