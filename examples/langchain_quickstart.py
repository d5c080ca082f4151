"""Two-stage retrieval with LangChain on one screen, offline, with the bundled toy pair.

    python examples/langchain_quickstart.py

For real use, name the published models: Qwen/Qwen3-Embedding-0.6B and Qwen/Qwen3-Reranker-0.6B.
"""

from tempfile import TemporaryDirectory

from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever, open_milvus

TEXTS = [
    "Milvus keeps inserted data in object storage.",
    "An index speeds up the search for vectors.",
    "Cats sleep most of the day.",
]

with TemporaryDirectory() as folder:
    embeddings = Qwen3Embeddings(model="tiny")
    store = open_milvus(embeddings, uri=f"{folder}/milvus.db")
    store.add_texts(TEXTS, ids=["storage", "index", "cats"])
    reranker = Qwen3Reranker(model="tiny")
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker, k=50, top_n=2)
    for document in retriever.invoke("How is data stored in Milvus?"):
        print(f"{document.metadata['relevance_score']:.3f}  {document.page_content}")
