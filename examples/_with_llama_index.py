"""The demo's part in LlamaIndex."""

import os
from argparse import Namespace

from _ingest import ingest
from _output import Hit
from llama_index.core import QueryBundle, VectorStoreIndex
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.schema import NodeWithScore

from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, open_milvus, two_stage_query_engine


class WithLlamaIndex:
    """A collection, an index and a query engine."""

    def __init__(self, options: Namespace) -> None:
        self.options = options
        place = {"uri": options.uri, "token": options.token}
        model = {"model": options.model, "dtype": options.dtype, "base_url": options.base_url[0]}
        collection = f"llama_index_{options.collection}"
        ingest("llama-index", options, collection)
        embed_model = Qwen3Embedding(**model, instruction=options.instruction)
        store = open_milvus(
            embed_model, **place, collection_name=collection, k=options.top_k,
            use_async_client=False,
        )  # fmt: skip
        self.index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
        self.reranker = Qwen3Rerank(
            model=options.reranker,
            dtype=options.dtype,
            base_url=options.base_url[-1],
            instruction=options.instruction,
        )

    def search(self, question: str) -> tuple[list[Hit], list[Hit]]:
        """The candidates in the order of dense search, and in that of the reranker."""
        dense = self.index.as_retriever(similarity_top_k=self.options.top_k).retrieve(question)
        reranked = self.reranker.postprocess_nodes(dense, query_str=question)
        return hits(dense), hits(reranked)

    def answer(self, question: str) -> tuple[str | None, list[Hit], list[int]]:
        """The LLM's answer, if there is one; what it reads; the numbers that it cites."""
        engine = two_stage_query_engine(
            self.index, self.llm(), reranker=self.reranker, top_k=self.options.top_k,
            top_n=self.options.top_n,
        )  # fmt: skip
        if not self.options.llm:
            return None, hits(engine.retrieve(QueryBundle(question))), []
        response = engine.query(question)
        cited = (response.metadata or {})["citations"]
        return str(response), hits(response.source_nodes), cited

    def llm(self) -> LLM:
        """The LLM that answers; without a key, a placeholder that is never called."""
        if not self.options.llm:
            return MockLLM()
        from llama_index.llms.openai_like import OpenAILike

        return OpenAILike(
            model=self.options.llm,
            api_base=os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
            is_chat_model=True,
            context_window=32_768,
        )


def hits(nodes: list[NodeWithScore]) -> list[Hit]:
    """Nodes with one of their scores, for printing."""
    return [
        Hit(node.node_id, node.metadata["source"], node.text, node.score or 0.0, node.metadata)
        for node in nodes
    ]
