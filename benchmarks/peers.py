"""Systems that `speed.py` compares: this package, and what runs in the same environment.

A system has some of the methods `rerank(query, documents)`, `embed(documents)`, `query(text)` and
`callers(requests)`. They return log-odds (n,), vectors (n, hidden_size), one vector (hidden_size,),
and the answers to all requests in one row. A system loads a model when a method first needs it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.process import Checkpoints
from qwen3_core import Embedder, RemoteEmbedder, RemoteReranker, Reranker
from qwen3_core.model.linear import projected
from qwen3_core.prompts import TASKS, rerank_prompt

TASK = TASKS["web_search"]

CALLERS = 8
"""Threads of the task that has many callers."""

BATCH = 32
"""Default batch of sentence-transformers, which LangChain's and LlamaIndex's classes keep."""


class ManyCallers:
    """Answers queries and rerank calls of several threads at once."""

    _embedder: Any
    _reranker: Any
    lock: AbstractContextManager[Any] = nullcontext()
    """What a caller holds during a call; a lock where the system takes one call at a time."""
    query: Callable[[str], np.ndarray]
    rerank: Callable[[str, list[str]], np.ndarray]

    def callers(self, requests: list[tuple[str, list[str]]]) -> np.ndarray:
        """Answer requests: a query and its documents, of which an embedding query has none."""
        _ = self._embedder, self._reranker  # loaded once, before the threads need them

        def answer(request: tuple[str, list[str]]) -> np.ndarray:
            query, documents = request
            with self.lock:
                return self.rerank(query, documents) if documents else self.query(query)

        with ThreadPoolExecutor(CALLERS) as pool:
            return np.concatenate(list(pool.map(answer, requests)))


class OurClasses(ManyCallers):
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


def _our_version() -> str:
    numba = f", numba {version('numba')}" if find_spec("numba") else ""
    return version("qwen3-retrieval") + numba


class Ours(OurClasses):
    """This package."""

    version = _our_version()

    def __init__(self, given: Checkpoints) -> None:
        # Both load at their first use.
        self._embedder = Embedder(given.embedding, dtype=given.dtype, device=given.device)
        self._reranker = Reranker(given.reranker, dtype=given.dtype, device=given.device)


class OursInt8(Ours):
    """This package in 8-bit integers."""

    def __init__(self, given: Checkpoints) -> None:
        super().__init__(replace(given, dtype="int8"))


class WithoutPrefixCache:
    """This package without the prefix cache: the instruction is computed again for each query."""

    version = Ours.version

    def __init__(self, given: Checkpoints) -> None:
        self._embedder = Embedder(given.embedding, dtype=given.dtype, device=given.device)

    def query(self, text: str) -> np.ndarray:
        self._embedder.engine.encoder.forget()
        vector: np.ndarray = self._embedder.embed_queries([text])[0]
        return vector


class Floor:
    """The weight matrix products alone, by torch's oneDNN, for the tokens that must be computed."""

    version = Ours.version

    def __init__(self, given: Checkpoints) -> None:
        import torch

        self._torch = torch
        self._inputs: dict[tuple[int, int], Any] = {}
        self._given = given

    @cached_property
    def _embedder(self) -> Any:
        return Embedder(
            self._given.embedding, dtype=self._given.dtype, device=self._given.device
        ).engine

    @cached_property
    def _reranker(self) -> Any:
        return Reranker(
            self._given.reranker, dtype=self._given.dtype, device=self._given.device
        ).engine

    def rerank(self, query: str, documents: list[str]) -> np.ndarray:
        tokenizer = self._reranker.tokenizer
        rows, _ = tokenizer.rerank_documents(documents, 8192)
        tokens = len(tokenizer.rerank_prefix(TASK, query)) + sum(map(len, rows))
        return self._run(self._reranker.encoder, tokens)

    def embed(self, documents: list[str]) -> np.ndarray:
        rows, _ = self._embedder.tokenizer.embedding_documents(documents, 8192)
        return self._run(self._embedder.encoder, sum(map(len, rows)))

    def query(self, text: str) -> np.ndarray:
        return self.embed([f":{text}"])  # without the instruction, which is cached

    def _run(self, encoder: Any, tokens: int) -> np.ndarray:
        """All layers' matrix products, for blocks of rows as in a forward pass."""
        torch = self._torch
        model: Any = encoder.model
        config = model.config
        wide, heads = config.hidden_size, config.num_attention_heads * config.head_dim
        most = encoder.pack_tokens
        with torch.inference_mode():
            for count in [min(most, tokens - i) for i in range(0, tokens, most)]:
                for layer in model.layers:
                    attention, mlp = layer.self_attn, layer.mlp
                    projected(attention, self._input(encoder, count, wide))
                    attention.o_proj(self._input(encoder, count, heads))
                    mlp.gate_proj(self._input(encoder, count, wide))
                    mlp.up_proj(self._input(encoder, count, wide))
                    mlp.down_proj(self._input(encoder, count, config.intermediate_size))
        return np.empty(0)

    def _input(self, encoder: Any, rows: int, width: int) -> Any:
        key = (rows, width)
        if key not in self._inputs:
            x = self._torch.randn(rows, width)
            self._inputs[key] = x.to(encoder.device, encoder.model.dtype)
        return self._inputs[key]


class Published(ManyCallers):
    """The models' published usage: one left-padded batch, for reranking logits of all tokens."""

    version = f"transformers {version('transformers')}"

    def __init__(self, given: Checkpoints) -> None:
        import torch

        self._torch = torch
        self._given = given
        self.lock = threading.Lock()

    @cached_property
    def _embedder(self) -> Any:
        from transformers import AutoModel

        return self._load(AutoModel, self._given.embedding)

    @cached_property
    def _reranker(self) -> Any:
        from transformers import AutoModelForCausalLM

        return self._load(AutoModelForCausalLM, self._given.reranker)

    def _load(self, kind: Any, name: str) -> Any:
        from transformers import AutoTokenizer

        load: Any = AutoTokenizer.from_pretrained
        dtype = getattr(self._torch, self._given.dtype)
        model = kind.from_pretrained(name, dtype=dtype).to(self._given.device).eval()
        return load(name, padding_side="left"), model

    def rerank(self, query: str, documents: list[str]) -> np.ndarray:
        tokenizer, model = self._reranker
        yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
        prompts = rerank_prompts(query, documents)
        batch = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
        batch = batch.to(self._given.device)
        with self._torch.inference_mode():
            logits = model(**batch).logits[:, -1].float()
        difference: np.ndarray = (logits[:, yes] - logits[:, no]).cpu().numpy()
        return difference

    def embed(self, documents: list[str]) -> np.ndarray:
        tokenizer, model = self._embedder
        batch = tokenizer(documents, padding=True, return_tensors="pt")
        batch = batch.to(self._given.device)
        with self._torch.inference_mode():
            states = model(**batch).last_hidden_state[:, -1].float()
            vectors: np.ndarray = self._torch.nn.functional.normalize(states, dim=1).cpu().numpy()
        return vectors

    def query(self, text: str) -> np.ndarray:
        vector: np.ndarray = self.embed([query_prompt(text)])[0]
        return vector


def rerank_prompts(query: str, documents: list[str]) -> list[str]:
    """The reranker's whole prompts."""
    return [rerank_prompt(TASK, query, document) for document in documents]


def query_prompt(text: str) -> str:
    """The embedding model's whole prompt for a query."""
    return f"Instruct: {TASK}\nQuery:{text}"


class SentenceTransformers(ManyCallers):
    """sentence-transformers in its default batches of 32, as LangChain's classes call it."""

    batch = BATCH

    def __init__(self, given: Checkpoints) -> None:
        self.version = version("sentence-transformers")
        options: dict[str, Any] = {"dtype": given.dtype}  # attention is torch's sdpa by default
        if given.device.startswith("cuda") and find_spec("flash_attn"):
            options["attn_implementation"] = "flash_attention_2"
        self._options: dict[str, Any] = {"device": given.device, "model_kwargs": options}
        self._given = given
        self.lock = threading.Lock()

    @cached_property
    def _embedder(self) -> Any:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(self._given.embedding, **self._options)

    @cached_property
    def _reranker(self) -> Any:
        from sentence_transformers import CrossEncoder
        from torch.nn import Identity

        return CrossEncoder(
            self._given.reranker,
            activation_fn=Identity(),
            prompts={"web_search": TASK},
            default_prompt_name="web_search",
            **self._options,
        )

    def rerank(self, query: str, documents: list[str]) -> np.ndarray:
        pairs = [(query, document) for document in documents]
        scores: np.ndarray = self._reranker.predict(
            pairs, batch_size=self.batch, show_progress_bar=False
        )
        return scores

    def embed(self, documents: list[str]) -> np.ndarray:
        found = self._embedder.encode_document(
            documents, batch_size=self.batch, show_progress_bar=False
        )
        return np.asarray(found)

    def query(self, text: str) -> np.ndarray:
        return np.asarray(self._embedder.encode_query(text, show_progress_bar=False))


class OneByOne(SentenceTransformers):
    """The same in batches of one, without padding."""

    batch = 1
