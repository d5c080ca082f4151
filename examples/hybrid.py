"""Hybrid search with LangChain: vectors and full text (BM25), then reranking.

    python examples/hybrid.py
    python examples/hybrid.py handbook "What does E-4711 mean?"

Vectors find passages with the same meaning. Full text finds passages with the same rare words:
names, codes, options. Milvus fuses both lists by rank; it needs Milvus Lite, or a server from 2.5
on. The models are the bundled toy pair: for real use, name the published models below.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from langchain_core.documents import Document

from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever, open_milvus
from qwen3_retrieval.demo.passages import read_corpus
from qwen3_retrieval.documents.cutting import Cutter, tokenizer_of

EMBEDDING, RERANKER = "tiny", "tiny"  # Qwen/Qwen3-Embedding-0.6B, Qwen/Qwen3-Reranker-0.6B

folder, question = [*sys.argv[1:3], "", ""][:2]
folder = folder or str(Path(__file__).parent / "corpus")
question = question or "What does metric_type COSINE change?"

# Read and cut as by `python -m qwen3_retrieval.ingest`.
passages = read_corpus(Path(folder), Cutter(tokenizer_of(EMBEDDING))).passages
documents = [Document(each.text, metadata={"source": each.source}) for each in passages]


def show(title: str, found: list[Document]) -> None:
    print(f"\n{title}")
    for number, document in enumerate(found, start=1):
        print(f"  [{number}] {document.page_content.split(chr(10))[0]}")


with TemporaryDirectory() as database:
    embeddings, uri = Qwen3Embeddings(model=EMBEDDING), f"{database}/milvus.db"
    store = open_milvus(embeddings, uri=uri, hybrid=True)
    dense = open_milvus(embeddings, uri=uri, collection_name="dense")
    for each in (store, dense):
        each.add_documents(documents)
    reranker = Qwen3Reranker(model=RERANKER)
    retriever = Qwen3TwoStageRetriever(vectorstore=store, reranker=reranker, k=50, top_n=3)
    print(question)
    show("vectors", dense.similarity_search(question, k=3))
    show("vectors and full text, fused", store.similarity_search(question, k=3))
    show("then reranked", retriever.invoke(question))
