"""One evaluation: systems compared, then the sweep, then the recommendation."""

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from qwen3_core import __version__
from qwen3_retrieval.evaluation.bench import Bench
from qwen3_retrieval.evaluation.cache import Cache
from qwen3_retrieval.evaluation.dataset import Dataset
from qwen3_retrieval.evaluation.extra import check_installed
from qwen3_retrieval.evaluation.result import Report
from qwen3_retrieval.evaluation.settings import EvaluationSettings
from qwen3_retrieval.evaluation.significance import compare
from qwen3_retrieval.evaluation.sources import as_search
from qwen3_retrieval.evaluation.sweep import sweep
from qwen3_retrieval.evaluation.views import distributions, views


def evaluate(
    dataset: Dataset,
    settings: EvaluationSettings | None = None,
    *,
    retrievers: Mapping[str, Any] | None = None,
) -> Report:
    """Measure the built-in systems, and your own, on a dataset.

    Args:
        dataset: From `load_dataset`, or built from `Passage`s and `Question`s.
        settings: Models, number of candidates, range of the sweep; by default the published 0.6B
            pair.
        retrievers: Name -> LangChain retriever, LlamaIndex retriever or query engine, or function
            from a question to `Hit`s. It searches its own index; its results are matched to the
            dataset by id, by file, or by text.

    Raises:
        ImportError: If a package of the extra `evaluation` is missing.
        ValueError: If a setting is out of range.
        TypeError: If a retriever has the wrong type.
        OSError: If a model cannot be found or read.
        ServerError: If a server fails.

    Warns:
        UserWarning: If none of a retriever's results could be matched: all its metrics are then 0.
    """
    check_installed()
    settings = settings or EvaluationSettings()
    searches = {name: as_search(source) for name, source in (retrievers or {}).items()}
    begin = time.perf_counter()
    with Cache(settings.cache) as cache:
        bench = Bench(dataset, settings, cache)
        for systems in bench.pairs.values():
            bench.add_built_in(systems)
        for name, search in searches.items():
            bench.add_retriever(name, search)
        first = next(iter(bench.pairs.values()))
        compared, seen = views(bench, first)
        scores = distributions(bench, first)
        found, recommendation = sweep(bench, first) if settings.sweep else (None, None)
        if recommendation and recommendation.setting.rerank:
            recommendation = replace(recommendation, score_threshold=scores[0].suggested)
        report = Report(
            version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=_described(settings),
            machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            data=bench.data(),
            systems=bench.systems,
            comparisons=compare(
                {s.name: np.array(s.per_question[bench.main]) for s in bench.systems}, bench.main
            ),
            sweep=found,
            recommendation=recommendation,
            distributions=scores,
            compared=compared,
            views=seen,
            seconds=0.0,
        )
        bench.close()
    return replace(report, seconds=round(time.perf_counter() - begin, 1))


def _described(settings: EvaluationSettings) -> dict[str, Any]:
    """The settings in JSON's types."""
    described = asdict(settings)
    described["cache"] = None if settings.cache is None else str(settings.cache)
    described["pair"]["reranker"] = settings.pair.reranker_model
    return described
