"""The dataset, the pairs of models, and what was measured of them."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qwen3_core.common.progress import progress_bar
from qwen3_core.prompts import resolve_instruction
from qwen3_retrieval.evaluation import metrics
from qwen3_retrieval.evaluation.cache import Cache
from qwen3_retrieval.evaluation.dataset import Dataset
from qwen3_retrieval.evaluation.lexical import Lexical
from qwen3_retrieval.evaluation.models import Models
from qwen3_retrieval.evaluation.result import Data, Setting, System
from qwen3_retrieval.evaluation.settings import CUT, EvaluationSettings
from qwen3_retrieval.evaluation.significance import estimate
from qwen3_retrieval.evaluation.sources import Matcher
from qwen3_retrieval.evaluation.systems import Ranking, Systems, latency, spread


class Bench:
    """The dataset, the pairs of models, and the measurements so far."""

    main = f"nDCG@{CUT}"
    """The metric of decisions."""

    def __init__(self, dataset: Dataset, settings: EvaluationSettings, cache: Cache) -> None:
        """Index the passages for BM25."""
        self.dataset = dataset
        self.settings = settings
        self.k = min(settings.k, len(dataset.passages))
        self.qrels = {q.id: q.relevant for q in dataset.questions}
        self.members: dict[str, list[int]] = {}
        """Unit -> positions of its passages."""
        for i, passage in enumerate(dataset.passages):
            self.members.setdefault(passage.unit, []).append(i)
        self.all = range(len(dataset.questions))
        self.timed = spread(len(dataset.questions), settings.latency_questions)
        self.systems: list[System] = []
        texts = [passage.model_text for passage in dataset.passages]
        questions = [question.text for question in dataset.questions]
        lexical = Lexical([passage.text for passage in dataset.passages])
        labels = [pair for pair in (settings.pair, settings.second) if pair is not None]
        names = [pair.label for pair in labels]
        if len(set(names)) < len(names):  # then the rerankers differ
            names = [f"{pair.label} + {pair.reranker_model}" for pair in labels]
        if len(set(names)) < len(names):
            names = [f"{name} ({i})" for i, name in enumerate(names, 1)]
        self.pairs: dict[str, Systems] = {}
        for name, pair in zip(names, labels, strict=True):
            models = Models(pair, cache, progress=settings.progress)
            self.pairs[name] = Systems(texts, questions, models, lexical)

    @property
    def base(self) -> Setting:
        """The setting of the comparison and the sweep's start: dense search alone."""
        settings = self.settings
        return Setting(
            "dense",
            rerank=False,
            k=self.k,
            dimensions=settings.dimensions,
            instruction=resolve_instruction(settings.instruction),
            max_length=settings.max_length,
        )

    def add_built_in(self, systems: Systems) -> None:
        """Measure the systems of a pair; BM25 once."""
        pair = self.pair_of(systems)
        suffix = f" ({pair})" if len(self.pairs) > 1 else ""
        base = self.base
        bare = replace(base, instruction=None)
        settings = {
            "BM25": replace(base, first="bm25", dimensions=None, instruction=None),
            f"dense, no instruction{suffix}": bare,
            f"dense{suffix}": base,
            f"hybrid{suffix}": replace(base, first="hybrid"),
            f"dense + rerank, no instruction{suffix}": replace(bare, rerank=True),
            f"dense + rerank{suffix}": replace(base, rerank=True),
            f"hybrid + rerank{suffix}": replace(base, first="hybrid", rerank=True),
        }
        for name, setting in settings.items():
            if name != "BM25":
                self._add(name, pair, systems, setting)
            elif not self.systems:
                self._add(name, "", systems, setting)

    def pair_of(self, systems: Systems) -> str:
        """The label of a pair of models."""
        return next(name for name, each in self.pairs.items() if each is systems)

    def system_of(self, systems: Systems, setting: Setting) -> System:
        """The built-in system of a pair with this setting."""
        pair = self.pair_of(systems)
        return next(s for s in self.systems if s.pair == pair and s.setting == setting)

    def add_retriever(self, name: str, search: Any) -> None:
        """Measure a user's retriever; every question is timed.

        Warns:
            UserWarning: If none of its results could be matched: all its metrics are then 0.
        """
        matcher = Matcher(self.dataset)
        run: dict[str, list[str]] = {}
        seconds, hits, unmatched = [], 0, 0
        total = len(self.dataset.questions)
        with progress_bar(name, total, self.settings.progress) as advance:
            for question in self.dataset.questions:
                begin = time.perf_counter()
                found = list(search(question.text))
                seconds.append(time.perf_counter() - begin)
                units = [matcher(hit) for hit in found]
                hits += len(units)
                unmatched += units.count(None)
                named = [unit or f"\0unmatched {i}" for i, unit in enumerate(units)]
                run[question.id] = list(dict.fromkeys(named))
                if advance:
                    advance(1)
        if unmatched == hits:
            what = f"none of its {hits} results is" if hits else "it returned nothing that is"
            warnings.warn(
                f"{name!r}: {what} a passage of the dataset, by id, file or text, so all its "
                "metrics are 0: let it search the dataset's passages or files",
                stacklevel=3,
            )
        values = metrics.evaluate_run(self.qrels, run, self.k)
        self.systems.append(
            System(
                name=name,
                pair="",
                setting=None,
                metrics={metric: estimate(v) for metric, v in values.items()},
                latency={"total": latency(seconds)},
                tokens=None,
                index_bytes=None,
                per_question={metric: v.tolist() for metric, v in values.items()},
                unmatched=unmatched / hits if hits else 0.0,
            )
        )

    def measure(
        self, systems: Systems, setting: Setting, questions: Sequence[int]
    ) -> tuple[dict[str, np.ndarray], list[Ranking]]:
        """Metrics of these questions, and their rankings."""
        rankings = systems.rank(setting, questions)
        asked = [self.dataset.questions[q] for q in questions]
        qrels = {q.id: q.relevant for q in asked}
        run = {q.id: self.units(r) for q, r in zip(asked, rankings, strict=True)}
        return metrics.evaluate_run(qrels, run, setting.k), rankings

    def units(self, ranking: Ranking) -> list[str]:
        """The units of a ranking, each at the rank of its first passage."""
        return list(dict.fromkeys(self.dataset.passages[i].unit for i in ranking.passages))

    def data(self) -> Data:
        """The dataset's description for the report."""
        dataset = self.dataset
        models = next(iter(self.pairs.values())).models
        counts = [models.tokens(passage.model_text) for passage in dataset.passages]
        known = [count for count in counts if count is not None]
        return Data(
            name=dataset.name,
            kind=dataset.kind,
            passages=len(dataset.passages),
            units=dataset.units,
            questions=[question.id for question in dataset.questions],
            synthetic=dataset.synthetic,
            tokens=sum(known) if known else None,
            longest=max(known) if known else None,
            notes=dataset.notes,
        )

    def close(self) -> None:
        """Release the models."""
        for systems in self.pairs.values():
            systems.models.close()

    def _add(self, name: str, pair: str, systems: Systems, setting: Setting) -> None:
        values, rankings = self.measure(systems, setting, self.all)
        self.systems.append(
            System(
                name=name,
                pair=pair,
                setting=setting,
                metrics={metric: estimate(v) for metric, v in values.items()},
                latency=systems.latency(setting, self.timed),
                tokens=systems.tokens(setting, list(zip(self.all, rankings, strict=True))),
                index_bytes=systems.index_bytes(setting),
                per_question={metric: v.tolist() for metric, v in values.items()},
            )
        )
