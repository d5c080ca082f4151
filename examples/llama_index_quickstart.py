"""Two-stage retrieval with LlamaIndex on one screen, offline, with the bundled toy pair.

    python examples/llama_index_quickstart.py

For real use, name the published models: Qwen/Qwen3-Embedding-0.6B and Qwen/Qwen3-Reranker-0.6B.
"""

from tempfile import TemporaryDirectory

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode

from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, open_milvus

TEXTS = {
    "storage": "Milvus keeps inserted data in object storage.",
    "index": "An index speeds up the search for vectors.",
    "cats": "Cats sleep most of the day.",
}
QUESTION = "How is data stored in Milvus?"

with TemporaryDirectory() as folder:
    embed_model = Qwen3Embedding(model="tiny")
    store = open_milvus(embed_model, uri=f"{folder}/milvus.db", use_async_client=False)
    nodes = [TextNode(id_=name, text=text) for name, text in TEXTS.items()]
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=embed_model)
    candidates = index.as_retriever(similarity_top_k=50).retrieve(QUESTION)
    reranker = Qwen3Rerank(model="tiny", top_n=2)
    for node in reranker.postprocess_nodes(candidates, query_str=QUESTION):
        print(f"{node.score:.3f}  {node.text}")
