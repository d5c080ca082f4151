"""Two-stage RAG with LangChain: Milvus finds passages, Qwen3-Reranker orders them, an LLM answers.

    python examples/langchain_rag.py
    python examples/langchain_rag.py --corpus "notes/**/*.md" --question "What did we decide?"

Without OPENAI_API_KEY it prints the passages that the LLM would have read.
"""

import time

from _corpus import collection_name, delete_stale, load_passages, plan_index
from _output import (
    Hit,
    show_answer,
    show_indexing,
    show_next_steps,
    show_question,
    show_settings,
    show_unanswered,
)
from _shared import QUESTION, Settings, run
from langchain_core.documents import Document
from langchain_milvus import Milvus

from langchain_qwen3 import (
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
    create_rag_chain,
    milvus_kwargs,
)
from qwen3_retrieval.ingest._langchain import splitters
from qwen3_retrieval.ingest.chunks import Chunk


def main(settings: Settings) -> None:
    passages = load_passages(settings, splitters)
    show_settings(settings, passages)
    store = open_store(settings, passages)
    question = settings.question or QUESTION
    show_question(question)
    answer(settings, store, question)
    show_next_steps(settings)


def open_store(settings: Settings, passages: list[Chunk], *, hybrid: bool = False) -> Milvus:
    """A Milvus vector store that holds the passages; only what it lacks is embedded."""
    embeddings = Qwen3Embeddings(
        model=settings.model,
        dtype=settings.dtype,
        base_url=settings.embedding_url,
        dimensions=settings.dimensions,
        instruction=settings.instruction,
    )
    collection = collection_name(settings, "langchain_hybrid" if hybrid else "langchain")
    store = Milvus(
        **milvus_kwargs(
            embeddings,
            uri=settings.uri,
            token=settings.token,
            collection_name=collection,
            k=settings.top_k,
            hybrid=hybrid,
        )
    )
    start = time.perf_counter()
    plan = plan_index(store.client, collection, "pk", passages, settings)
    if plan.missing:
        store.add_documents(
            [Document(p.text, metadata=p.metadata) for p in plan.missing],
            ids=[p.id for p in plan.missing],
        )
    delete_stale(store.client, collection, plan, settings)
    show_indexing("LangChain", plan, passages, time.perf_counter() - start)
    return store


def answer(settings: Settings, store: Milvus, question: str) -> list[Hit]:
    """Dense search for `top_k` candidates, reranking to `top_n`, an answer that cites them.

    Returns:
        The passages that the LLM reads.
    """
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
    )
    if not settings.llm:
        documents = retriever.invoke(question)
        hits = [to_hit(d, d.metadata["relevance_score"]) for d in documents]
        show_unanswered("LangChain", hits)
        return hits

    from langchain_openai import ChatOpenAI

    chain = create_rag_chain(retriever, ChatOpenAI(model=settings.llm))
    result = chain.invoke(question)
    hits = [to_hit(d, d.metadata["relevance_score"]) for d in result["context"]]
    cited = [citation["number"] for citation in result["citations"]]
    show_answer("LangChain", result["answer"], hits, cited)
    return hits


def to_hit(document: Document, score: float) -> Hit:
    """A document with one of its scores, for printing."""
    return Hit(
        id=document.metadata["pk"],
        title=document.metadata["title"],
        source=document.metadata["source"],
        text=document.page_content,
        score=score,
    )


if __name__ == "__main__":
    run(main, __doc__)
