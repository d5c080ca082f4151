"""Hybrid search: vectors and full text (BM25) find passages together, Qwen3-Reranker orders them.

    python examples/hybrid.py --question "What does metric_type COSINE change?"

Vectors find what means the same, full text what has the same rare words: names, codes, options.
Milvus fuses both lists by rank (reciprocal rank fusion). It needs Milvus Lite, or a server from 2.5
on.
"""

from typing import Any

from _corpus import load_passages
from _output import Hit, say, show_next_steps, show_question, show_ranking, show_settings
from _shared import QUESTION, Settings, run
from langchain_milvus import Milvus
from langchain_rag import open_store, to_hit
from llama_index.core import QueryBundle, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index_rag import open_index, to_hits

from langchain_qwen3 import Qwen3Reranker, Qwen3TwoStageRetriever
from llama_index_qwen3 import Qwen3Rerank, two_stage_query_engine
from qwen3_retrieval.ingest._langchain import splitters


def main(settings: Settings) -> None:
    passages = load_passages(settings, splitters)
    show_settings(settings, passages)
    store = open_store(settings, passages, hybrid=True)
    index = open_index(settings, passages, hybrid=True)

    question = settings.question or QUESTION
    show_question(question)
    k, n = min(settings.top_k, len(passages)), settings.top_n
    dense = to_hits(index.as_retriever(similarity_top_k=k).retrieve(question))
    fused = fuse(store, question, k)
    reranked = search_langchain(settings, store, question)
    show_ranking(f"dense search, top {n} of {k}", dense[:n])
    show_ranking(f"fused with BM25, top {n} of {k}", fused[:n])
    show_ranking(f"then reranked, top {n} of {k}", reranked)
    other = search_llama_index(settings, index, question)
    if [hit.text for hit in other] == [hit.text for hit in reranked]:
        say("LangChain and LlamaIndex return the same order.", "dim")
    else:
        show_ranking("reranked by LlamaIndex", other)
    show_next_steps(settings)


def by_rank(k: int) -> dict[str, Any]:
    """What a hybrid search with LangChain's store takes: how to fuse, and how many of each kind."""
    return {"ranker_type": "rrf", "fetch_k": k}


def fuse(store: Milvus, question: str, k: int) -> list[Hit]:
    """Candidates in the order of the fused ranks, each with the sum of 1 / (60 + rank)."""
    found = store.similarity_search_with_score(question, k=k, **by_rank(k))
    return [to_hit(document, score) for document, score in found]


def search_langchain(settings: Settings, store: Milvus, question: str) -> list[Hit]:
    """Both kinds of search, fused, then reranked, in one retriever."""
    retriever = Qwen3TwoStageRetriever(
        vectorstore=store,
        reranker=Qwen3Reranker(
            model=settings.reranker,
            dtype=settings.dtype,
            base_url=settings.reranker_url,
            instruction=settings.instruction,
        ),
        k=settings.top_k,
        top_n=settings.top_n,
        search_kwargs=by_rank(settings.top_k),
    )
    return [to_hit(d, d.metadata["relevance_score"]) for d in retriever.invoke(question)]


def search_llama_index(settings: Settings, index: VectorStoreIndex, question: str) -> list[Hit]:
    """The same with LlamaIndex."""
    engine = two_stage_query_engine(
        index,
        MockLLM(),
        reranker=Qwen3Rerank(
            model=settings.reranker,
            dtype=settings.dtype,
            base_url=settings.reranker_url,
            instruction=settings.instruction,
        ),
        top_k=settings.top_k,
        top_n=settings.top_n,
        vector_store_query_mode="hybrid",
    )
    return to_hits(engine.retrieve(QueryBundle(question)))


if __name__ == "__main__":
    run(main, __doc__)
