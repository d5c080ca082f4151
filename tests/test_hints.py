"""Hints at the argument that is meant."""

import pickle
import re
from importlib import import_module

import pytest
from langchain_core.embeddings import FakeEmbeddings
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.llms import MockLLM
from llama_index.core.vector_stores import SimpleVectorStore

import langchain_qwen3
import llama_index_qwen3
from langchain_qwen3 import (
    Qwen3CrossEncoder,
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3TwoStageRetriever,
)
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank, two_stage_query_engine
from qwen3_core.common.hints import CARRIED_OVER, CLASSES
from tests.conftest import ROOT, naming

STORE = InMemoryVectorStore(FakeEmbeddings(size=3))
RETRIEVER = STORE.as_retriever()


@pytest.mark.parametrize(
    ("component", "name", "meant"),
    [
        (Qwen3Embeddings, "url", "base_url"),
        (Qwen3Embeddings, "openai_api_base", "base_url"),
        (Qwen3Reranker, "openai_api_key", "api_key"),
        (Qwen3Reranker, "top_N", "top_n"),
        (Qwen3TwoStageRetriever, "top_k", "k"),
        (Qwen3Embedding, "api_base", "base_url"),
        (Qwen3Embedding, "dimension", "dimensions"),
        (Qwen3TwoStageRetriever, "base_retriever", "retriever"),
        (Qwen3TwoStageRetriever, "base_compressor", "reranker"),
        (Qwen3Rerank, "base_URL", "base_url"),
    ],
)
def test_an_argument_of_another_name_gets_a_hint(component, name, meant):
    with pytest.raises(ValueError, match=naming(f"'{name}'", f"did you mean {meant}?")) as e:
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
    with pytest.raises(ValueError, match=r"unknown argument .*: Qwen3\w+ takes .*\bmodel\b"):
        Qwen3Embeddings(colour={})  # type: ignore[call-arg]


# What people bring along from other classes


COMPONENTS = (Qwen3Embeddings, Qwen3Reranker, Qwen3CrossEncoder, Qwen3Embedding, Qwen3Rerank)


@pytest.mark.parametrize(
    ("component", "name"),
    [
        (component, name)
        for component in COMPONENTS
        for name, carried in CARRIED_OVER.items()
        if name not in component.model_fields
        and (carried.ours is None or carried.ours in component.model_fields)
    ],
)
def test_an_argument_of_another_class_is_answered_with_what_it_is_here(component, name):
    with pytest.raises(ValueError, match=f"unknown argument '{name}': ") as refused:
        component(**{name: "sk-secret"})
    assert str(CARRIED_OVER[name]) in str(refused.value)
    assert "did you mean" not in str(refused.value)
    assert "sk-secret" not in str(refused.value)


def test_a_document_instruction_is_not_taken_for_the_queries():
    for component in (Qwen3Embeddings, Qwen3Embedding):
        with pytest.raises(
            ValueError, match=naming("'text_instruction'", "documents", "instruction")
        ):
            component(text_instruction="Given a text, ...")  # type: ignore[call-arg]


def test_the_migration_page_shows_the_table():
    code = re.compile(r"HF_\w+=1|HF_\w+|\w+=")
    lines: dict[str, list[str]] = {}
    for name, carried in CARRIED_OVER.items():
        lines.setdefault(str(carried), []).append(f"`{name}=`")
    rows = [
        f"| {', '.join(names)} | {code.sub(lambda match: f'`{match[0]}`', line)} |"
        for line, names in lines.items()
    ]
    page = (ROOT / "docs/howto/migration.md").read_text("utf-8")
    table = "| an argument there | here |\n| --- | --- |\n" + "\n".join(rows) + "\n\n"
    assert table in page, f"docs/howto/migration.md must hold this table:\n{table}"


@pytest.mark.parametrize("component", [*COMPONENTS, Qwen3TwoStageRetriever])
def test_a_positional_argument_is_refused(component):
    with pytest.raises(TypeError, match=rf"write {component.__name__}\((model|vectorstore)="):
        component("sk-secret")


@pytest.mark.parametrize("component", COMPONENTS)
def test_model_and_model_name_are_one_setting(component, tmp_path):
    for name in ("model", "model_name"):
        made = component(**{name: "tiny"})
        assert made.model == made.model_name == "tiny"
        copy = made.model_copy(update={name: str(tmp_path)})
        assert copy.model == copy.model_name == str(tmp_path)
        assert pickle.loads(pickle.dumps(copy)).model_name == str(tmp_path)
    with pytest.raises(ValueError, match=naming("model='tiny'", "model_name='other'")):
        component(model="tiny", model_name="other")
    assert component(model="tiny", model_name="tiny").model == "tiny"


@pytest.mark.parametrize("component", COMPONENTS)
def test_an_instruction_in_the_model_cards_form_is_refused(component):
    with pytest.raises(
        ValueError, match=naming("instruction", '"Instruct:"', "'Given a claim, find it'")
    ):
        component(model="tiny", instruction="Instruct: Given a claim, find it\nQuery:")


@pytest.mark.parametrize("component", [Qwen3Embeddings, Qwen3Reranker, Qwen3CrossEncoder])
def test_model_name_can_be_assigned_where_model_can(component, tmp_path):
    made = component(model="tiny")
    made.model_name = str(tmp_path)
    assert made.model == str(tmp_path)


@pytest.mark.parametrize(
    ("package", "name", "here"),
    [
        ("langchain_qwen3", "Qwen3Embedding", "Qwen3Embeddings"),
        ("langchain_qwen3", "Qwen3Rerank", "Qwen3Reranker"),
        ("llama_index_qwen3", "Qwen3Embeddings", "Qwen3Embedding"),
        ("llama_index_qwen3", "Qwen3Reranker", "Qwen3Rerank"),
        ("llama_index_qwen3", "create_rag_chain", "two_stage_query_engine"),
    ],
)
def test_a_name_of_the_other_package_gets_a_hint(package, name, here):
    with pytest.raises(ImportError, match=f"{package} has no {name}: use {here} here"):
        exec(f"from {package} import {name}", {})
    with pytest.raises(AttributeError, match="has no attribute 'Colour'"):
        import_module(package).Colour  # noqa: B018


def test_the_hints_at_classes_name_what_there_is():
    for package, names in CLASSES.items():
        (other,) = (p for p in CLASSES if p != package)
        for name, here in names.items():
            assert hasattr(import_module(other), name)
            assert all(hasattr(import_module(package), n) for n in here.split(" and "))


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
            "got dict (write open_milvus(embed_model, uri=...))",
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
