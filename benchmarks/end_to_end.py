"""Indexing into Milvus Lite and two-stage questions in both frameworks, beside their own classes.

    python benchmarks/end_to_end.py
    python benchmarks/end_to_end.py --embedding HUB_NAME --reranker HUB_NAME --chunks 200

The same checkpoints, texts and vector stores; the bundled toys by default. The systems take turns,
each in a process of its own; ratios are medians of the rounds' ratios. The stock classes of
Hugging Face are run where `langchain-huggingface` and `llama-index-embeddings-huggingface` are
installed. "overhead" is what a framework's call takes beyond the call of `qwen3_core` within it,
with 100 candidates.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.checkpoints import TINY
from benchmarks.machine import describe
from benchmarks.process import Checkpoints, Peer
from benchmarks.tasks import QUESTION, ragged
from qwen3_core.prompts import TASKS

K, TOP_N = 10, 3
CANDIDATES = 100


class LangChain:
    """This package in LangChain."""

    def __init__(self, given: Checkpoints) -> None:
        from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker

        options: dict[str, Any] = {"dtype": given.dtype, "device": "cpu"}
        self._embeddings = Qwen3Embeddings(model=given.embedding, **options)
        self._reranker = Qwen3Reranker(model=given.reranker, top_n=TOP_N, **options)

    def index(self, texts: list[str], uri: str) -> np.ndarray:
        from langchain_milvus import Milvus

        from langchain_qwen3 import Qwen3TwoStageRetriever, milvus_kwargs

        store = Milvus(**milvus_kwargs(self._embeddings, uri=uri))
        store.add_texts(texts, ids=[str(i) for i in range(len(texts))])
        self._retriever: Any = Qwen3TwoStageRetriever(
            vectorstore=store, reranker=self._reranker, k=K, top_n=TOP_N
        )
        return np.empty(0)

    def ask(self, questions: list[str]) -> np.ndarray:
        return np.array([len(self._retriever.invoke(question)) for question in questions])

    def overhead(self, texts: list[str]) -> np.ndarray:
        from langchain_core.documents import Document

        documents = [Document(text) for text in texts]
        return _beyond_the_core(
            lambda question: self._reranker.compress_documents(documents, question),
            self._reranker.reranker,
        )


class InLlamaIndex:
    """Base of both systems in LlamaIndex."""

    _embeddings: Any
    _reranker: Any

    def index(self, texts: list[str], uri: str) -> np.ndarray:
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.core.schema import TextNode
        from llama_index.vector_stores.milvus import MilvusVectorStore

        store = MilvusVectorStore(**self._store(uri))
        nodes = [TextNode(text=text, id_=str(i)) for i, text in enumerate(texts)]
        context = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex(nodes, storage_context=context, embed_model=self._embeddings)
        self._retriever: Any = index.as_retriever(similarity_top_k=K)
        return np.empty(0)

    def ask(self, questions: list[str]) -> np.ndarray:
        found = []
        for question in questions:
            nodes = self._retriever.retrieve(question)
            found.append(len(self._reranker.postprocess_nodes(nodes, query_str=question)))
        return np.array(found)

    def _store(self, uri: str) -> dict[str, Any]:
        raise NotImplementedError


class LlamaIndex(InLlamaIndex):
    """This package in LlamaIndex."""

    def __init__(self, given: Checkpoints) -> None:
        from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank

        options: dict[str, Any] = {"dtype": given.dtype, "device": "cpu"}
        self._embeddings = Qwen3Embedding(model=given.embedding, **options)
        self._reranker = Qwen3Rerank(model=given.reranker, top_n=TOP_N, **options)

    def overhead(self, texts: list[str]) -> np.ndarray:
        from llama_index.core.schema import NodeWithScore, TextNode

        nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in texts]
        return _beyond_the_core(
            lambda question: self._reranker.postprocess_nodes(nodes, query_str=question),
            self._reranker.reranker,
        )

    def _store(self, uri: str) -> dict[str, Any]:
        from llama_index_qwen3 import milvus_kwargs

        return milvus_kwargs(self._embeddings, uri=uri)


class StockLangChain:
    """HuggingFaceEmbeddings, and CrossEncoderReranker over sentence-transformers' CrossEncoder."""

    def __init__(self, given: Checkpoints) -> None:
        from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
        from langchain_classic.retrievers.document_compressors.cross_encoder import (
            BaseCrossEncoder,
        )
        from langchain_huggingface import HuggingFaceEmbeddings

        class Ranker(BaseCrossEncoder):
            model = _cross_encoder(given)

            def score(self, text_pairs: Any) -> Any:
                return self.model.predict(text_pairs, show_progress_bar=False)

        options: dict[str, Any] = {"device": "cpu", "model_kwargs": {"dtype": given.dtype}}
        self._embeddings = HuggingFaceEmbeddings(model_name=given.embedding, model_kwargs=options)
        self._reranker = CrossEncoderReranker(model=Ranker(), top_n=TOP_N)

    def index(self, texts: list[str], uri: str) -> np.ndarray:
        from langchain_classic.retrievers import ContextualCompressionRetriever
        from langchain_milvus import Milvus

        store = Milvus(
            self._embeddings,
            connection_args={"uri": uri},
            index_params={"index_type": "FLAT", "metric_type": "IP", "params": {}},
        )
        store.add_texts(texts)
        self._retriever = ContextualCompressionRetriever(
            base_retriever=store.as_retriever(search_kwargs={"k": K}),
            base_compressor=self._reranker,
        )
        return np.empty(0)

    def ask(self, questions: list[str]) -> np.ndarray:
        return np.array([len(self._retriever.invoke(question)) for question in questions])


class StockLlamaIndex(InLlamaIndex):
    """HuggingFaceEmbedding and SentenceTransformerRerank."""

    def __init__(self, given: Checkpoints) -> None:
        from llama_index.core.postprocessor import SentenceTransformerRerank
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding

        options: dict[str, Any] = {"device": "cpu", "model_kwargs": {"dtype": given.dtype}}
        self._embeddings = HuggingFaceEmbedding(model_name=given.embedding, **options)
        self._reranker = SentenceTransformerRerank(
            model=given.reranker, top_n=TOP_N, device="cpu", trust_remote_code=False
        )
        self._reranker._model = _cross_encoder(given)  # noqa: SLF001 - it takes no dtype

    def _store(self, uri: str) -> dict[str, Any]:
        width = len(self._embeddings.get_text_embedding("a"))
        return {"uri": uri, "dim": width, "overwrite": True, "similarity_metric": "IP"}


def _cross_encoder(given: Checkpoints) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(
        given.reranker,
        device="cpu",
        model_kwargs={"dtype": given.dtype},
        prompts={"web_search": TASKS["web_search"]},
        default_prompt_name="web_search",
    )


def _beyond_the_core(call: Callable[[str], object], core: Any, rounds: int = 7) -> np.ndarray:
    """Median seconds of a framework's call, and of the part outside the core's call within it."""
    whole, within = list[float](), list[float]()
    rerank = core.rerank

    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        found = rerank(*args, **kwargs)
        within.append(time.perf_counter() - begin)
        return found

    core.rerank = timed
    for turn in range(rounds + 1):
        begin = time.perf_counter()
        call(f"{turn} {QUESTION}")
        whole.append(time.perf_counter() - begin)
    beyond = [a - b for a, b in zip(whole, within, strict=True)]
    return np.array([median(whole[1:]), median(beyond[1:])])


SYSTEMS = {
    "LangChain, here": LangChain,
    "LangChain, Hugging Face": StockLangChain,
    "LlamaIndex, here": LlamaIndex,
    "LlamaIndex, Hugging Face": StockLlamaIndex,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=2000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--embedding", default=str(TINY / "embedding"), help="hub name or folder")
    parser.add_argument("--reranker", default=str(TINY / "reranker"), help="hub name or folder")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    args = parser.parse_args()
    console = Console()
    for key, value in describe().items():
        console.print(f"{key:13} {value}")
    texts = [f"{i} {text}" for i, text in enumerate(ragged(args.chunks, (14, 170)))]
    questions = [f"{QUESTION} Part {i}" for i in range(args.questions)]
    given = Checkpoints(args.embedding, args.reranker, args.dtype)
    peers: dict[str, Peer] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            for name, system in SYSTEMS.items():
                try:
                    peers[name] = Peer(system, given)
                except RuntimeError as error:
                    console.print(f"[yellow]without {name}: {error}")
            console.print(measure(peers, texts, questions, args.rounds, folder))
            for name, peer in peers.items():
                if "overhead" in peer.offers:
                    _, (whole, beyond), _ = peer.run("overhead", texts[:CANDIDATES])
                    console.print(
                        f"{name}, {CANDIDATES} candidates: {whole:.3f} s, overhead "
                        f"{1000 * beyond:.1f} ms, {beyond / whole:.1%}"
                    )
        finally:
            for peer in peers.values():
                peer.close()


def measure(
    peers: dict[str, Peer], texts: list[str], questions: list[str], rounds: int, folder: str
) -> Table:
    """Medians of each system, and its ratio to this package in the same framework."""
    taken: dict[tuple[str, str], list[float]] = {}
    for number, peer in enumerate(peers.values()):  # models load at the first use
        peer.run("index", texts[:TOP_N], str(Path(folder) / f"{number}-first.db"))
        peer.run("ask", questions[:1])
    for turn in range(rounds):
        for number, (name, peer) in enumerate(peers.items()):
            uri = str(Path(folder) / f"{number}-{turn}.db")
            taken.setdefault((name, "index"), []).append(peer.run("index", texts, uri)[0])
            seconds, found, _ = peer.run("ask", questions)
            if set(found) != {TOP_N}:
                msg = f"{name} answered with {set(found)} passages, not {TOP_N}"
                raise RuntimeError(msg)
            taken.setdefault((name, "ask"), []).append(seconds)
    table = Table(
        "system", f"{len(texts):,} chunks", "times", f"{len(questions)} questions", "times"
    )
    for name in peers:
        cells = [name]
        for what in ("index", "ask"):
            ours = taken[name.partition(",")[0] + ", here", what]
            ratio = median(a / b for a, b in zip(taken[name, what], ours, strict=True))
            cells += [f"{median(taken[name, what]):.1f} s", f"{ratio:.2f}"]
        table.add_row(*cells)
    return table


if __name__ == "__main__":
    main()
