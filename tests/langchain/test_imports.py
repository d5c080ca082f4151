"""Importing the package is cheap, and everything it promises is there."""

import inspect
import json
import subprocess
import sys

import pytest

import langchain_qwen3

HEAVY = ["torch", "transformers", "sentence_transformers", "llama_index", "pymilvus"]


def loaded_after(code: str) -> list[str]:
    """The heavy packages that a fresh interpreter has loaded after running `code`."""
    report = f"import json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import langchain_qwen3",
        """from langchain_qwen3 import *
Qwen3Embeddings().embed_documents([])
Qwen3Reranker().rerank([], "any")
Qwen3Reranker().compress_documents([], "any")""",
    ],
    ids=["the package", "all names, and components with nothing to do"],
)
@pytest.mark.integration
def test_loads_no_model_library(code):
    assert loaded_after(code) == []


@pytest.mark.integration
def test_the_check_itself_sees_a_loaded_library():
    assert loaded_after("import pymilvus") == ["pymilvus"]


@pytest.mark.parametrize("name", langchain_qwen3.__all__)
def test_every_public_name_is_there_and_listed(name):
    assert getattr(langchain_qwen3, name) is not None
    assert name in dir(langchain_qwen3)


@pytest.mark.parametrize(
    "name", ["Qwen3CrossEncoder", "Qwen3Embeddings", "Qwen3Reranker", "Qwen3TwoStageRetriever"]
)
def test_help_describes_every_field(name):
    component = getattr(langchain_qwen3, name)
    shown = " ".join((inspect.getdoc(component) or "").split())
    described = {n: f.description for n, f in component.model_fields.items() if f.description}
    assert {"reranker" if "TwoStage" in name else "model"} <= set(described)
    for field, description in described.items():
        assert f"{field}: {' '.join(description.split())}" in shown
