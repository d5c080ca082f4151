"""Every parameter that users set is described, and equal ones in equal words."""

import inspect
from collections import defaultdict
from dataclasses import fields
from typing import Any

import pytest

import langchain_qwen3
import llama_index_qwen3
import qwen3_core
from qwen3_core.batch import Qwen3EmbedBatch
from qwen3_core.common.docstrings import DESCRIPTIONS, described, parameters_documented
from qwen3_retrieval.evaluation import EvaluationSettings, Pair, Report
from qwen3_retrieval.evaluation.result import System

PACKAGES = (qwen3_core, langchain_qwen3, llama_index_qwen3)

RESULTS = {"Ranked", "RankedDocument", "Stats"}
"""Users read these and do not make them."""

SEVERAL_MEANINGS = {
    *("embed_model", "k", "llm", "metadata_keys", "model", "reranker", "retriever", "top_n")
}
"""Parameters that mean one thing in a component and another in what is built of components."""

PUBLIC = {
    f"{package.__name__}.{name}": value
    for package in PACKAGES
    for name in package.__all__
    if callable(value := getattr(package, name))
    and name not in RESULTS
    and not (isinstance(value, type) and issubclass(value, (Exception, dict)))
} | {"qwen3_core.batch.Qwen3EmbedBatch": Qwen3EmbedBatch}


def is_ours(value: Any) -> bool:
    return value.__module__.partition(".")[0] in {package.__name__ for package in PACKAGES}


def parameters(public: Any) -> set[str]:
    """The parameters that our code declares: of a pydantic model its fields."""
    if hasattr(public, "model_fields"):
        own = [vars(cls).get("__annotations__", {}) for cls in public.__mro__ if is_ours(cls)]
        return {name for name in public.model_fields if any(name in names for names in own)}
    if isinstance(public, type) and not is_ours(public.__init__):  # type: ignore[misc]
        return set()  # TwoStageQueryEngine has that of LlamaIndex
    return set(inspect.signature(public).parameters)


def descriptions(public: Any) -> dict[str, str]:
    return {name.lstrip("*"): text for name, text in described(public).items()}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_is_described(name):
    found = descriptions(PUBLIC[name])
    assert parameters(PUBLIC[name]) - {n for n, text in found.items() if len(text) > 10} == set()
    assert inspect.isclass(PUBLIC[name]) or set(found) == parameters(PUBLIC[name])


@pytest.mark.parametrize("kind", [EvaluationSettings, Pair, Report, System])
def test_help_describes_every_field_of_an_evaluation(kind):
    names = {field.name for field in fields(kind)}
    assert {name for name, text in described(kind).items() if len(text) > 10} == names


@pytest.mark.parametrize("package", [langchain_qwen3, llama_index_qwen3])
def test_the_signatures_of_open_milvus_name_what_each_returns(package):
    opened, plain = inspect.signature(package.open_milvus), inspect.signature(package.milvus_kwargs)
    assert opened.parameters == plain.parameters
    assert opened.return_annotation in {"Qwen3Milvus", "Qwen3MilvusVectorStore"}
    assert plain.return_annotation == dict[str, Any]


def test_one_parameter_has_one_description():
    texts = defaultdict(set)
    for public in PUBLIC.values():
        for name, text in descriptions(public).items():
            texts[name].add(text)
    several = {name for name, found in texts.items() if len(found) > 1}
    assert several <= SEVERAL_MEANINGS
    for name, text in DESCRIPTIONS.items():
        servers = descriptions(qwen3_core.Server).get(name)  # its `model` is only a name
        assert texts[name] - {servers} == {text}


def test_the_decorator_adds_what_is_missing_in_the_signatures_order():
    @parameters_documented({"a": "The first.", "c": "Not one of them."})
    def function(a: int, b: int, **c: int) -> None:
        """Do it.

        Args:
            b: The second: of
                two.

        Raises:
            ValueError: Always.
        """

    assert list(described(function).items()) == [("a", "The first."), ("b", "The second: of two.")]
    assert (function.__doc__ or "").endswith("Raises:\n    ValueError: Always.\n")
