"""RAG with LangChain: fill a collection from a folder, search, rerank, and let an LLM answer.

    python examples/langchain_rag.py
    python examples/langchain_rag.py handbook "Where do the spare keys hang?"

It uses the bundled toy pair: for real use, name the published models below. Without OPENAI_API_KEY
it prints the passages that the LLM would read.
"""

import os
import sys
from pathlib import Path

from langchain_openai import ChatOpenAI

from langchain_qwen3 import (
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
    create_rag_chain,
    open_milvus,
)
from qwen3_retrieval.ingest.__main__ import main as ingest

EMBEDDING, RERANKER = "tiny", "tiny"  # Qwen/Qwen3-Embedding-0.6B, Qwen/Qwen3-Reranker-0.6B
URI, COLLECTION = "./milvus.db", "langchain_rag"

folder, question = [*sys.argv[1:3], "", ""][:2]
folder = folder or str(Path(__file__).parent / "corpus")
question = question or "How is data stored in Milvus?"

# `python -m qwen3_retrieval.ingest`; a second run embeds only what has changed.
ingest(
    [
        *("--framework", "langchain", "--corpus", folder, "--delete-missing"),
        *("--uri", URI, "--collection", COLLECTION, "--model", EMBEDDING),
    ]
)

store = open_milvus(Qwen3Embeddings(model=EMBEDDING), uri=URI, collection_name=COLLECTION)
retriever = Qwen3TwoStageRetriever(
    vectorstore=store, reranker=Qwen3Reranker(model=RERANKER), k=50, top_n=3
)
if os.environ.get("OPENAI_API_KEY"):
    llm = ChatOpenAI(model=os.environ.get("OPENAI_MODEL", "gpt-5-mini"))
    result = create_rag_chain(retriever, llm).invoke(question)
    print(result["answer"])
    for citation in result["citations"]:
        print(f"[{citation['number']}] {citation['document'].metadata['source']}")
else:
    for number, document in enumerate(retriever.invoke(question), start=1):
        score, source = document.metadata["relevance_score"], document.metadata["source"]
        print(f"[{number}] {source}, score {score:.3f}\n{document.page_content}\n")
