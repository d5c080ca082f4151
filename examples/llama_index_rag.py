"""Two-stage RAG with LlamaIndex: Milvus finds passages, Qwen3-Reranker orders them, an LLM answers.

    python examples/llama_index_rag.py
    python examples/llama_index_rag.py --corpus "notes/**/*.md" --question "What did we decide?"

Without OPENAI_API_KEY it prints the passages that the LLM would have read.
"""

import os
import time
from collections.abc import Sequence

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
from llama_index.core import QueryBundle, VectorStoreIndex
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.vector_stores.milvus import MilvusVectorStore

from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, milvus_kwargs, two_stage_query_engine
from qwen3_retrieval.comparison import Move
from qwen3_retrieval.ingest._llama_index import splitters
from qwen3_retrieval.ingest.chunks import Chunk


def main(settings: Settings) -> None:
    passages = load_passages(settings, splitters)
    show_settings(settings, passages)
    index = open_index(settings, passages)
    question = settings.question or QUESTION
    show_question(question)
    answer(settings, index, question)
    show_next_steps(settings)


def open_index(
    settings: Settings, passages: list[Chunk], *, hybrid: bool = False
) -> VectorStoreIndex:
    """An index over a Milvus store that holds the passages; only what it lacks is embedded."""
    embed_model = Qwen3Embedding(
        model=settings.model,
        dtype=settings.dtype,
        base_url=settings.embedding_url,
        dimensions=settings.dimensions,
        instruction=settings.instruction,
    )
    collection = collection_name(settings, "llama_index_hybrid" if hybrid else "llama_index")
    store = MilvusVectorStore(
        **milvus_kwargs(
            embed_model,
            uri=settings.uri,
            token=settings.token,
            collection_name=collection,
            k=settings.top_k,
            hybrid=hybrid,
            use_async_client=False,
        )
    )
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    start = time.perf_counter()
    plan = plan_index(store.client, collection, "id", passages, settings)
    if plan.missing:
        hidden = list(plan.missing[0].metadata)  # kept, but not part of what the models read
        index.insert_nodes(
            [
                TextNode(
                    id_=p.id,
                    text=p.text,
                    metadata=p.metadata,
                    excluded_embed_metadata_keys=hidden,
                    excluded_llm_metadata_keys=hidden,
                )
                for p in plan.missing
            ]
        )
    delete_stale(store.client, collection, plan, settings)
    show_indexing("LlamaIndex", plan, passages, time.perf_counter() - start)
    return index


def answer(
    settings: Settings, index: VectorStoreIndex, question: str, shown: Sequence[Hit] = ()
) -> None:
    """Dense search for `top_k` candidates, reranking to `top_n`, an answer that cites them.

    Without an LLM, passages that were `shown` already are not printed again.
    """
    engine = two_stage_query_engine(
        index,
        open_llm(settings),
        reranker=Qwen3Rerank(
            model=settings.reranker,
            dtype=settings.dtype,
            base_url=settings.reranker_url,
            instruction=settings.instruction,
        ),
        top_k=settings.top_k,
        top_n=settings.top_n,
    )
    if not settings.llm:
        show_unanswered("LlamaIndex", to_hits(engine.retrieve(QueryBundle(question))), shown)
        return

    response = engine.query(question)
    cited = (response.metadata or {})["citations"]
    show_answer("LlamaIndex", str(response), to_hits(response.source_nodes), cited)


def search(
    settings: Settings, index: VectorStoreIndex, question: str, answer: str | None = None
) -> list[Move[Hit]]:
    """The candidates for a question, in both orders; the one with the title `answer` is marked."""
    dense = index.as_retriever(similarity_top_k=settings.top_k).retrieve(question)
    reranker = Qwen3Rerank(
        model=settings.reranker,
        dtype=settings.dtype,
        base_url=settings.reranker_url,
        instruction=settings.instruction,
    )
    hits = {hit.id: (before, hit) for before, hit in enumerate(to_hits(dense), 1)}
    found = []
    reranked = to_hits(reranker.postprocess_nodes(dense, query_str=question))
    for after, now in enumerate(reranked, 1):
        before, hit = hits[now.id]
        marked = hit.title == answer
        found.append(Move(hit, before, after, hit.score, now.score, relevant=marked))
    return found


def open_llm(settings: Settings) -> LLM:
    """The requested LLM; without a key, a placeholder that is never called."""
    if not settings.llm:
        return MockLLM()
    if base_url := os.environ.get("OPENAI_BASE_URL"):
        from llama_index.llms.openai_like import OpenAILike

        return OpenAILike(
            model=settings.llm, api_base=base_url, is_chat_model=True, context_window=32_768
        )
    from llama_index.llms.openai import OpenAI

    return OpenAI(model=settings.llm)


def to_hits(nodes: list[NodeWithScore]) -> list[Hit]:
    """Nodes for printing."""
    return [
        Hit(
            id=node.node_id,
            title=node.metadata["title"],
            source=node.metadata["source"],
            text=node.text,
            score=node.score or 0.0,
        )
        for node in nodes
    ]


if __name__ == "__main__":
    run(main, __doc__)
