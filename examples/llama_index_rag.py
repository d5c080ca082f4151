"""RAG with LlamaIndex: fill a collection from a folder, search, rerank, and let an LLM answer.

    python examples/llama_index_rag.py
    python examples/llama_index_rag.py handbook "Where do the spare keys hang?"

It uses the bundled toy pair: for real use, name the published models below. Without OPENAI_API_KEY
it prints the passages that the LLM would read.
"""

import os
import sys
from pathlib import Path

from llama_index.core import QueryBundle, VectorStoreIndex
from llama_index.core.llms import LLM, MockLLM
from llama_index.llms.openai_like import OpenAILike

from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, open_milvus, two_stage_query_engine
from qwen3_retrieval.ingest.__main__ import main as ingest

EMBEDDING, RERANKER = "tiny", "tiny"  # Qwen/Qwen3-Embedding-0.6B, Qwen/Qwen3-Reranker-0.6B
URI, COLLECTION = "./milvus_llama.db", "llama_index_rag"

folder, question = [*sys.argv[1:3], "", ""][:2]
folder = folder or str(Path(__file__).parent / "corpus")
question = question or "How is data stored in Milvus?"

# `python -m qwen3_retrieval.ingest`; a second run embeds only what has changed.
ingest(
    [
        *("--framework", "llama-index", "--corpus", folder, "--delete-missing"),
        *("--uri", URI, "--collection", COLLECTION, "--model", EMBEDDING),
    ]
)

embed_model = Qwen3Embedding(model=EMBEDDING)
store = open_milvus(embed_model, uri=URI, collection_name=COLLECTION, use_async_client=False)
index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
llm: LLM = MockLLM()  # never called
if os.environ.get("OPENAI_API_KEY"):
    llm = OpenAILike(
        model=os.environ.get("OPENAI_MODEL", "gpt-5-mini"),
        api_base=os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        is_chat_model=True,
        context_window=128_000,
    )
engine = two_stage_query_engine(index, llm, reranker=Qwen3Rerank(model=RERANKER), top_k=50, top_n=3)
if os.environ.get("OPENAI_API_KEY"):
    response = engine.query(question)
    print(response)
    for number in (response.metadata or {})["citations"]:
        print(f"[{number}] {response.source_nodes[number - 1].metadata['source']}")
else:
    for number, node in enumerate(engine.retrieve(QueryBundle(question)), start=1):
        print(f"[{number}] {node.metadata['source']}, score {node.score:.3f}\n{node.text}\n")
