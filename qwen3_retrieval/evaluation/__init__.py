"""Measures retrieval on a user's own data: is reranking worth it, and at which settings?

`python -m qwen3_retrieval.evaluation DATASET` is the command; docs/evaluation.md explains its
report. `evaluate` does the same in Python. It also takes any LangChain retriever, LlamaIndex
retriever or query engine in addition to the built-in systems. Importing this package does not load
the libraries of the extra `evaluation`.
"""

from qwen3_retrieval.evaluation.dataset import Dataset, Passage, Question
from qwen3_retrieval.evaluation.load import load_dataset
from qwen3_retrieval.evaluation.page import write_html
from qwen3_retrieval.evaluation.plots import frontier_svg
from qwen3_retrieval.evaluation.result import Report
from qwen3_retrieval.evaluation.run import evaluate
from qwen3_retrieval.evaluation.settings import EvaluationSettings, Pair
from qwen3_retrieval.evaluation.sources import Hit

__all__ = [
    "Dataset",
    "EvaluationSettings",
    "Hit",
    "Pair",
    "Passage",
    "Question",
    "Report",
    "evaluate",
    "frontier_svg",
    "load_dataset",
    "write_html",
]
