"""Metadata that nodes embed before their text, on Milvus Lite."""

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode

from llama_index_qwen3 import Qwen3TwoStageRetriever, open_milvus

pytestmark = pytest.mark.integration  # databases, of a second each

QUESTION = "How is data stored in Milvus?"
READ = "title: Data in Milvus\n\nIt is kept in segments."


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "milvus.db")


def node(**changes):
    metadata = {"title": "Data in Milvus", "year": 2024}
    given = {"excluded_embed_metadata_keys": ["year"]} | changes
    return TextNode(id_="1", text="It is kept in segments.", metadata=metadata, **given)


def index_of(store, embed_model, nodes=()):
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex(list(nodes), storage_context=context, embed_model=embed_model)


def test_both_models_read_the_title_after_a_restart(embed_model, reranker, uri):
    store = open_milvus(embed_model, uri=uri, metadata_keys=["title"])
    index_of(store, embed_model, [node()])
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(uri)
    store = open_milvus(embed_model, uri=uri)
    (row,) = store.client.query("qwen3", filter='id != ""', output_fields=["*"])
    vector = embed_model.get_text_embedding(READ)
    assert np.dot(row["embedding"], vector) == pytest.approx(1, abs=1e-5)
    assert row["text"] == "It is kept in segments."
    (found,) = Qwen3TwoStageRetriever(index_of(store, embed_model), reranker=reranker).retrieve(
        QUESTION
    )
    (expected,) = reranker.reranker.rerank([READ], QUESTION)
    assert found.score == pytest.approx(expected.score, abs=1e-4)
    assert found.node.get_content() == "It is kept in segments."


@pytest.mark.parametrize(
    "changes",
    [
        {"excluded_embed_metadata_keys": []},
        {"excluded_embed_metadata_keys": ["title", "year"]},
        {"metadata_template": "{value}"},
        {"text_template": "{content}"},
    ],
)
async def test_a_node_that_embeds_something_else_is_refused(embed_model, uri, changes):
    store = open_milvus(embed_model, uri=uri, metadata_keys=["title"])
    other = node(**changes)
    other.embedding = embed_model.get_text_embedding("any")
    refused = r"metadata_keys .*excluded_embed_metadata_keys"
    with pytest.raises(ValueError, match=refused):
        store.add([other])
    with pytest.raises(ValueError, match=refused):
        await store.async_add([other])
    index_of(open_milvus(embed_model, uri=uri), embed_model, [other])  # each node decides


def test_keys_are_recorded_and_compared(embed_model, uri):
    open_milvus(embed_model, uri=uri, metadata_keys=["title"])
    open_milvus(embed_model, uri=uri, metadata_keys=["title"])
    for other in ([], ["author"]):
        with pytest.raises(ValueError, match=r"metadata_keys \['title'\], not"):
            open_milvus(embed_model, uri=uri, metadata_keys=other)
    with pytest.raises(TypeError, match="metadata_keys"):
        open_milvus(embed_model, uri=uri, metadata_keys="title")
    open_milvus(embed_model, uri=uri, collection_name="decided_by_nodes")
    with pytest.raises(ValueError, match=r"metadata_keys \[\], not \['title'\]"):
        open_milvus(
            embed_model, uri=uri, collection_name="decided_by_nodes", metadata_keys=["title"]
        )
