"""Names and numbers as the page, the terminal and the sweep write them."""

from typing import Final

from qwen3_core.prompts import DEFAULT_TASK, TASKS
from qwen3_retrieval.evaluation.result import Recommendation, Report, Setting
from qwen3_retrieval.evaluation.significance import questions_for_difference

STAGES: Final = ("bm25", "embed", "search", "rerank")
"""Stages of a question, in order."""

DIFFERENCES: Final = (0.1, 0.05, 0.02)
"""Differences of nDCG@10 for which the report states the number of questions."""


def describe(setting: Setting) -> str:
    """A setting in a few words: "dense + rerank, k 20, 128 dimensions"."""
    words = ["BM25" if setting.first == "bm25" else setting.first]
    if setting.rerank:
        words = [f"{words[0]} + rerank", f"k {setting.k}"]
    if setting.dimensions and setting.first != "bm25":
        words.append(f"{setting.dimensions} dimensions")
    if setting.max_length:
        words.append(f"max_length {setting.max_length}")
    if setting.first == "bm25":
        return ", ".join(words)
    task = instruction_name(setting.instruction)
    return ", ".join(words if task == DEFAULT_TASK else [*words, f"instruction {task}"])


def recommended_rows(found: Recommendation) -> dict[str, str]:
    """The recommended values by name, for display; omits those that do not apply."""
    setting = found.setting
    rows: dict[str, object] = {"system": describe(setting).partition(",")[0]}
    if setting.first != "bm25":
        rows["model"] = found.pair
    rows |= {"k": setting.k, "top_n": found.top_n}
    if found.score_threshold is not None:
        rows["score_threshold"] = found.score_threshold
    if setting.first != "bm25":
        rows["dimensions"] = setting.dimensions or "all"
        rows["instruction"] = instruction_name(setting.instruction)
        rows["max_length"] = setting.max_length or "default"
    return {name: str(value) for name, value in rows.items()}


def instruction_name(instruction: str | None) -> str:
    """The name of a sentence's task, else the sentence; "none" for None."""
    if instruction is None:
        return "none"
    names = (name for name, sentence in TASKS.items() if sentence == instruction)
    return next(names, f'"{instruction}"')


def milliseconds(value: float) -> str:
    """Format milliseconds with significant digits only."""
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def size(count: int) -> str:
    """Format a number of bytes."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


def power(report: Report) -> str:
    """How many questions it takes to see a difference like that of reranking; "" without one."""
    for each in report.comparisons:
        if (each.first, each.second) == report.compared and each.spread:
            counts = [f"{questions_for_difference(d, each.spread):,}" for d in DIFFERENCES]
            return (
                f"Where differences vary as between {each.first} and {each.second} here (standard "
                f"deviation {each.spread:.2f}), a true difference of "
                f"{', '.join(f'{d:g}' for d in DIFFERENCES)} is found in four of five samples of "
                f"{', '.join(counts)} questions."
            )
    return ""
