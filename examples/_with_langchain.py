"""The demo's part in LangChain."""

from argparse import Namespace

from _ingest import ingest
from _output import Hit
from langchain_core.documents import Document

from langchain_qwen3 import (
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
    create_rag_chain,
    open_milvus,
)


class WithLangChain:
    """A collection, a retriever and a chain."""

    def __init__(self, options: Namespace) -> None:
        self.options = options
        place = {"uri": options.uri, "token": options.token}
        model = {"model": options.model, "dtype": options.dtype, "base_url": options.base_url[0]}
        collection = f"langchain_{options.collection}"
        embeddings = Qwen3Embeddings(**model, instruction=options.instruction)
        embeddings.warm_up()  # else the first ingest's seconds are those of loading the model
        ingest("langchain", options, collection)
        self.store = open_milvus(embeddings, **place, collection_name=collection, k=options.top_k)
        self.reranker = Qwen3Reranker(
            model=options.reranker,
            dtype=options.dtype,
            base_url=options.base_url[-1],
            instruction=options.instruction,
        )

    def search(self, question: str) -> tuple[list[Hit], list[Hit]]:
        """The candidates in the order of dense search, and in that of the reranker."""
        found = self.store.similarity_search_with_score(question, k=self.options.top_k)
        dense = [hit(document, score) for document, score in found]
        ranking = self.reranker.rerank([document for document, _ in found], question)
        return dense, [hit(found[r.index][0], r.score) for r in ranking]

    def answer(self, question: str) -> tuple[str | None, list[Hit], list[int]]:
        """The LLM's answer, if there is one; what it reads; the numbers that it cites."""
        retriever = Qwen3TwoStageRetriever(
            vectorstore=self.store, reranker=self.reranker, k=self.options.top_k,
            top_n=self.options.top_n,
        )  # fmt: skip
        if not self.options.llm:
            documents = retriever.invoke(question)
            return None, [hit(d, d.metadata["relevance_score"]) for d in documents], []

        from langchain_openai import ChatOpenAI

        result = create_rag_chain(retriever, ChatOpenAI(model=self.options.llm)).invoke(question)
        hits = [hit(d, d.metadata["relevance_score"]) for d in result["context"]]
        return result["answer"], hits, [citation["number"] for citation in result["citations"]]


def hit(document: Document, score: float) -> Hit:
    """A document with one of its scores, for printing."""
    metadata = document.metadata
    return Hit(metadata["pk"], metadata["source"], document.page_content, score, metadata)
