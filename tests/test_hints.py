"""Hints at the argument that is meant."""

import pytest

from langchain_qwen3 import Qwen3Embeddings, Qwen3Reranker, Qwen3TwoStageRetriever
from llama_index_qwen3 import Qwen3Embedding, Qwen3Rerank


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


def test_other_arguments_are_refused_without_a_guess():
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        Qwen3Embeddings(encode_kwargs={})  # type: ignore[call-arg]


def test_what_the_frameworks_pass_is_known():
    assert Qwen3Embedding(model="tiny", embed_batch_size=3).embed_batch_size == 3
    assert Qwen3Embedding(model_name="tiny").model_name == "tiny"  # type: ignore[call-arg]
