"""The components inside LlamaIndex's own engines, retrievers and pipelines."""

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter, TokenTextSplitter
from llama_index.core.query_engine import CitationQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import MetadataMode
from llama_index.core.storage.docstore import SimpleDocumentStore

from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank
from qwen3_core.embedder import Embedder
from tests.llama_index.conftest import TEXTS, open_store

QUERY = "How is data stored in Milvus?"


@pytest.fixture
def keep() -> Qwen3Rerank:
    return Qwen3Rerank(model="tiny", top_n=3, keep_retrieval_score=True)


@pytest.fixture
def embedded(monkeypatch):
    """The texts that reach the embedder."""
    texts: list[str] = []
    original = Embedder.embed_documents

    def record(self, batch, **options):
        texts.extend(batch)
        return original(self, batch, **options)

    monkeypatch.setattr(Embedder, "embed_documents", record)
    return texts


# Engines


def test_query_engine(index, llm, server, keep, recorder):
    engine = index.as_query_engine(llm=llm, similarity_top_k=6, node_postprocessors=[keep])
    response = engine.query(QUERY)
    assert response.source_nodes[0].node.node_id == "node-0"
    assert len(response.source_nodes) == 3
    assert TEXTS[0] in server.prompt
    assert "retrieval_score" not in server.prompt
    assert recorder.names("ReRank") == ["ReRankStartEvent", "ReRankEndEvent"]


async def test_query_engine_async_and_streaming(fresh_index, llm, keep):
    engine = fresh_index.as_query_engine(
        llm=llm, similarity_top_k=6, node_postprocessors=[keep], streaming=True
    )
    response = await engine.aquery(QUERY)
    assert "".join([token async for token in response.async_response_gen()])
    assert response.source_nodes[0].node.node_id == "node-0"


@pytest.mark.parametrize("mode", ["condense_plus_context", "context"])
def test_chat_engine(index, llm, server, keep, mode):
    engine = index.as_chat_engine(mode, llm=llm, similarity_top_k=6, node_postprocessors=[keep])
    answer = engine.chat(QUERY)
    assert answer.source_nodes[0].node.node_id == "node-0"
    assert len(answer.source_nodes) == 3
    assert TEXTS[0] in server.prompt
    assert "retrieval_score" not in server.prompt
    engine.chat("And an index?")
    streamed = engine.stream_chat(QUERY)
    assert "".join(streamed.response_gen)


async def test_chat_engine_async(fresh_index, llm, keep):
    engine = fresh_index.as_chat_engine(
        "condense_plus_context", llm=llm, similarity_top_k=6, node_postprocessors=[keep]
    )
    answer = await engine.achat(QUERY)
    assert answer.source_nodes[0].node.node_id == "node-0"


def test_citation_query_engine(index, llm, server, keep):
    engine = CitationQueryEngine.from_args(
        index, llm=llm, similarity_top_k=6, node_postprocessors=[keep]
    )
    response = engine.query(QUERY)
    assert f"Source 1:\n{TEXTS[0]}" in response.source_nodes[0].node.get_content()
    assert f"Source 1:\n{TEXTS[0]}" in server.prompt
    assert "retrieval_score" not in server.prompt


# Retrievers


def test_retriever_finds_by_query_instruction(index, embed_model):
    hits = index.as_retriever(similarity_top_k=8).retrieve(QUERY)
    query = embed_model.get_query_embedding(QUERY)
    for hit in hits:
        document = embed_model.get_text_embedding(hit.node.get_content(MetadataMode.EMBED))
        cosine = sum(a * b for a, b in zip(query, document, strict=True))
        assert hit.score == pytest.approx(cosine, abs=1e-4)


def test_fusion_retriever_then_rerank(index, keep):
    fusion = QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=4), index.as_retriever(similarity_top_k=6)],
        llm=MockLLM(),
        num_queries=1,
        similarity_top_k=8,
        use_async=False,
    )
    got = keep.postprocess_nodes(fusion.retrieve(QUERY), query_str=QUERY)
    assert len(got) == 3
    assert got[0].node.node_id == "node-0"


def test_index_in_memory(embed_model, keep):
    index = VectorStoreIndex.from_documents(
        [Document(text=text) for text in TEXTS], embed_model=embed_model
    )
    response = index.as_query_engine(
        llm=MockLLM(), similarity_top_k=5, node_postprocessors=[keep]
    ).query(QUERY)
    assert response.source_nodes[0].node.get_content() == TEXTS[0]
    stored = index.docstore.docs.values()
    assert all("retrieval_score" not in node.metadata for node in stored)


# Ingestion


def documents(texts: list[str] = TEXTS) -> list[Document]:
    return [Document(text=text, doc_id=f"doc-{i}") for i, text in enumerate(texts)]


def test_ingestion_pipeline_caches_by_all_settings(embedded):
    cache = IngestionCache()

    def run(**settings) -> int:
        """How many texts were embedded."""
        before = len(embedded)
        model = Qwen3Embedding(model="tiny", **settings)
        nodes = IngestionPipeline(transformations=[model], cache=cache).run(documents=documents())
        assert {len(node.get_embedding()) for node in nodes} == {model.dim}
        return len(embedded) - before

    assert run() == len(TEXTS)
    assert run() == 0
    assert run(dimensions=64) == len(TEXTS)
    assert run(dimensions=64) == 0
    assert run(max_length=128) == len(TEXTS)
    same = {"timeout": 100.0, "num_workers": 2, "instruction": "fact_check", "embed_batch_size": 3}
    for name, value in same.items():
        assert run(**{name: value}) == 0


def test_what_changes_no_document_is_no_part_of_the_cache_key_but_still_of_the_settings():
    model = Qwen3Embedding(model="tiny", instruction="fact_check", timeout=9.0, embed_batch_size=3)
    again = Qwen3Embedding.from_dict(model.to_dict())
    assert (again.instruction, again.timeout, again.embed_batch_size) == ("fact_check", 9.0, 3)
    assert Qwen3Embedding.from_json(model.to_json()).instruction == "fact_check"


async def test_ingestion_pipeline_async(embed_model):
    nodes = await IngestionPipeline(transformations=[embed_model]).arun(documents=documents())
    assert [node.embedding for node in nodes] == embed_model.get_text_embedding_batch(TEXTS)


@pytest.mark.integration
def test_ingestion_pipeline_with_two_processes(embed_model):
    pipeline = IngestionPipeline(transformations=[Qwen3Embedding(model="tiny")])
    nodes = pipeline.run(documents=documents(), num_workers=2)
    expected = embed_model.get_text_embedding_batch(TEXTS)
    assert [node.get_content() for node in nodes] == TEXTS
    for node, vector in zip(nodes, expected, strict=True):
        assert node.embedding == pytest.approx(vector, abs=1e-5)


def test_ingestion_pipeline_upserts_into_milvus(tmp_path, embed_model, embedded):
    """What is unchanged is not embedded again; what changed replaces its old nodes."""
    store = open_store(tmp_path / "x.db", embed_model)
    docstore = SimpleDocumentStore()

    def run(texts, strategy):
        """The texts that were embedded."""
        before = len(embedded)
        IngestionPipeline(
            transformations=[SentenceSplitter(), embed_model],
            vector_store=store,
            docstore=docstore,
            docstore_strategy=strategy,
        ).run(documents=documents(texts))
        return embedded[before:]

    def stored() -> set[str]:
        index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
        hits = index.as_retriever(similarity_top_k=50).retrieve(QUERY)
        return {hit.node.get_content() for hit in hits}

    assert run(TEXTS, DocstoreStrategy.UPSERTS) == TEXTS
    assert run(TEXTS, DocstoreStrategy.UPSERTS) == []
    changed = ["Milvus keeps its data elsewhere now.", *TEXTS[1:]]
    assert run(changed, DocstoreStrategy.UPSERTS) == changed[:1]
    assert stored() == set(changed)
    assert run(changed[:4], DocstoreStrategy.UPSERTS_AND_DELETE) == []
    assert stored() == set(changed[:4])


def test_splitter_chunks_are_reranked_without_their_hidden_metadata(tmp_path, embed_model, keep):
    document = Document(
        text="\n\n".join(TEXTS),
        metadata={"file_path": "/a/b/c.md", "title": "Notes"},
        excluded_embed_metadata_keys=["file_path"],
    )
    storage = StorageContext.from_defaults(vector_store=open_store(tmp_path / "x.db", embed_model))
    index = VectorStoreIndex.from_documents(
        [document],
        storage_context=storage,
        embed_model=embed_model,
        transformations=[TokenTextSplitter(chunk_size=64, chunk_overlap=0)],
    )
    hits = index.as_retriever(similarity_top_k=5).retrieve(QUERY)
    assert len(hits) > 1
    seen = [hit.node.get_content(MetadataMode.EMBED) for hit in hits]
    assert all(text.startswith("title: Notes\n\n") for text in seen)
    got = keep.postprocess_nodes(hits, query_str=QUERY)
    assert TEXTS[0] in got[0].node.get_content()
