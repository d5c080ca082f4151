"""Measures retrieval on a user's own data: is reranking worth it, and at which settings?

`python -m qwen3_retrieval.evaluation DATASET` is the command; docs/evaluation.md explains its
report. `evaluate` does the same in Python. It also takes any LangChain retriever, LlamaIndex
retriever or query engine in addition to the built-in systems. Importing this package does not load
the libraries of the extra `evaluation`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen3_retrieval.evaluation.dataset import Dataset, Passage, Question
    from qwen3_retrieval.evaluation.load import load_dataset, load_passages
    from qwen3_retrieval.evaluation.question import ask_question
    from qwen3_retrieval.evaluation.result import Report
    from qwen3_retrieval.evaluation.run import evaluate
    from qwen3_retrieval.evaluation.settings import Pair, Settings
    from qwen3_retrieval.evaluation.sources import Hit

__all__ = [
    "Dataset",
    "Hit",
    "Pair",
    "Passage",
    "Question",
    "Report",
    "Settings",
    "ask_question",
    "evaluate",
    "load_dataset",
    "load_passages",
]

_HOMES = {
    "Dataset": "dataset",
    "Hit": "sources",
    "Pair": "settings",
    "Passage": "dataset",
    "Question": "dataset",
    "Report": "result",
    "Settings": "settings",
    "ask_question": "question",
    "evaluate": "run",
    "load_dataset": "load",
    "load_passages": "load",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first access, so that importing this package stays light."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"qwen3_retrieval.evaluation.{_HOMES[name]}"), name)
    msg = f"module 'qwen3_retrieval.evaluation' has no attribute {name!r}"
    raise AttributeError(msg)
