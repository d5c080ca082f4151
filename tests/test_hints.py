"""Hints at the argument that is meant."""

import re

import pytest
from langchain_core.embeddings import FakeEmbeddings
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.llms import MockLLM
from llama_index.core.vector_stores import SimpleVectorStore

import langchain_qwen3
import llama_index_qwen3
from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, two_stage_query_engine

STORE = InMemoryVectorStore(FakeEmbeddings(size=3))
RETRIEVER = STORE.as_retriever()


@pytest.mark.parametrize(
    ("component", "name", "meant"),
    [
        (Qwen3Embeddings, "model_name", "model"),
        (Qwen3Embeddings, "url", "base_url"),
        (Qwen3Embeddings, "openai_api_base", "base_url"),
        (Qwen3Reranker, "openai_api_key", "api_key"),
        (Qwen3Reranker, "top_N", "top_n"),
        (Qwen3TwoStageRetriever, "top_k", "k"),
        (Qwen3Embedding, "api_base", "base_url"),
        (Qwen3Embedding, "dimension", "dimensions"),
        (Qwen3Rerank, "model_name", "model"),
        (Qwen3Rerank, "base_URL", "base_url"),
    ],
)
def test_an_argument_of_another_name_gets_a_hint(component, name, meant):
    with pytest.raises(ValueError, match=f"unknown argument '{name}': did you mean {meant}?") as e:
        component(**{name: "sk-secret"})
    assert "sk-secret" not in str(e.value)


@pytest.mark.parametrize(
    ("milvus_kwargs", "name", "meant"),
    [
        (langchain_qwen3.milvus_kwargs, "collection", "collection_name"),
        (langchain_qwen3.milvus_kwargs, "colection_name", "collection_name"),
        (langchain_qwen3.milvus_kwargs, "url", "uri"),
        (langchain_qwen3.milvus_kwargs, "top_k", "k"),
        (langchain_qwen3.milvus_kwargs, "embed_model", "embeddings"),
        (langchain_qwen3.milvus_kwargs, "overwrite", "drop_old"),
        (llama_index_qwen3.milvus_kwargs, "collection", "collection_name"),
        (llama_index_qwen3.milvus_kwargs, "similarity_metric", "metric"),
        (llama_index_qwen3.milvus_kwargs, "embeddings", "embed_model"),
        (llama_index_qwen3.milvus_kwargs, "drop_old", "overwrite"),
    ],
)
def test_an_argument_of_milvus_kwargs_by_another_name_gets_a_hint(milvus_kwargs, name, meant):
    message = f"milvus_kwargs: unknown argument '{name}': did you mean {meant}?"
    with pytest.raises(TypeError, match=re.escape(message)):
        milvus_kwargs(**{name: "any"})


def test_an_argument_of_milvus_kwargs_that_nobody_could_mean_is_pythons_own_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        langchain_qwen3.milvus_kwargs(Qwen3Embeddings(model="tiny"), colour=1)  # type: ignore[call-arg]


def test_other_arguments_are_refused_without_a_guess():
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        Qwen3Embeddings(encode_kwargs={})  # type: ignore[call-arg]


def test_what_the_frameworks_pass_is_known():
    assert Qwen3Embedding(model="tiny", embed_batch_size=3).embed_batch_size == 3
    assert Qwen3Embedding(model_name="tiny").model_name == "tiny"  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            {"vectorstore": RETRIEVER},
            "got VectorStoreRetriever (it is a retriever: pass retriever=)",
        ),
        ({"retriever": STORE}, "got InMemoryVectorStore (it is a vector store: pass vectorstore=)"),
        ({"vectorstore": "milvus.db"}, "vectorstore= takes a vector store of LangChain"),
        ({"retriever": 3}, "retriever= takes a retriever of LangChain"),
        (
            {"vectorstore": STORE, "reranker": "tiny"},
            "reranker= takes a Qwen3Reranker; got str (write Qwen3Reranker(model=...))",
        ),
        ({"vectorstore": STORE, "reranker": STORE}, "got InMemoryVectorStore"),
        (
            {"vectorstore": STORE, "reranker": Qwen3Embeddings(model="tiny")},
            "got Qwen3Embeddings (it embeds: give it to the vector store)",
        ),
        (
            {"vectorstore": STORE, "reranker": Qwen3Rerank(model="tiny")},
            "got Qwen3Rerank (of LlamaIndex, but this is for LangChain)",
        ),
        (
            {"vectorstore": STORE, "reranker": Qwen3Reranker},
            "got Qwen3Reranker (the class itself: write Qwen3Reranker(...))",
        ),
    ],
)
def test_a_component_in_the_place_of_another_gets_a_hint(stages, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Qwen3TwoStageRetriever(**{"reranker": Qwen3Reranker(model="tiny"), **stages})


@pytest.mark.parametrize(
    ("components", "said"),
    [
        (
            {"reranker": Qwen3Embedding(model="tiny")},
            "of LlamaIndex; got Qwen3Embedding (it embeds: pass it as embed_model=",
        ),
        (
            {"reranker": Qwen3Reranker(model="tiny")},
            "got Qwen3Reranker (of LangChain, but this is for LlamaIndex)",
        ),
        ({"reranker": "tiny"}, "got str (write Qwen3Rerank(model=...))"),
        ({"reranker": Qwen3Rerank}, "got Qwen3Rerank (the class itself: write Qwen3Rerank(...))"),
        (
            {"embed_model": Qwen3Rerank(model="tiny")},
            "got Qwen3Rerank (it reranks: pass it as reranker=)",
        ),
        (
            {"embed_model": Qwen3Embeddings(model="tiny")},
            "got Qwen3Embeddings (of LangChain, but this is for LlamaIndex)",
        ),
        ({"embed_model": "tiny"}, "got str (write Qwen3Embedding(model=...))"),
        (
            {"llm": Qwen3Embedding(model="tiny")},
            "llm= takes an LLM of LlamaIndex; got Qwen3Embedding (it embeds: pass it as",
        ),
        ({"llm": "gpt-5-mini"}, "llm= takes an LLM of LlamaIndex; got str"),
        ({"filters": {"year": 2024}}, "got dict (write MetadataFilters(filters=["),
        ({"filters": "year > 2020"}, "vector_store_kwargs={'string_expr': ...}"),
        ({"text_qa_template": "{context_str} {query_str}"}, "got str (write PromptTemplate(...))"),
        (
            {"source": {"uri": "milvus.db"}},
            "got dict (write MilvusVectorStore(**milvus_kwargs(...)))",
        ),
        (
            {"source": STORE},
            "got InMemoryVectorStore (of LangChain, but this is for LlamaIndex)",
        ),
    ],
)
def test_the_query_engine_takes_no_component_in_the_place_of_another(components, said):
    given = {"source": SimpleVectorStore(), "llm": MockLLM(), **components}
    with pytest.raises(TypeError, match=re.escape(said)):
        two_stage_query_engine(**given)


@pytest.mark.parametrize(
    ("milvus_kwargs", "component", "said"),
    [
        (
            langchain_qwen3.milvus_kwargs,
            Qwen3Embedding(model="tiny"),
            "got Qwen3Embedding (of LlamaIndex, but this is for LangChain)",
        ),
        (langchain_qwen3.milvus_kwargs, "tiny", "got str (write Qwen3Embeddings(model=...))"),
        (
            llama_index_qwen3.milvus_kwargs,
            Qwen3Embeddings(model="tiny"),
            "got Qwen3Embeddings (of LangChain, but this is for LlamaIndex)",
        ),
        (llama_index_qwen3.milvus_kwargs, "tiny", "got str (write Qwen3Embedding(model=...))"),
    ],
)
def test_milvus_kwargs_takes_embeddings_of_its_framework(milvus_kwargs, component, said):
    with pytest.raises(TypeError, match=re.escape(said)):
        milvus_kwargs(component)
