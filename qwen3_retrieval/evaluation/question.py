"""The results of one question in dense search's order and in the reranker's."""

from collections.abc import Sequence
from dataclasses import replace

from qwen3_core.common.validation import check_query
from qwen3_core.prompts import resolve_instruction
from qwen3_retrieval.evaluation.cache import Cache
from qwen3_retrieval.evaluation.dataset import Passage
from qwen3_retrieval.evaluation.extra import check_installed
from qwen3_retrieval.evaluation.lexical import Lexical
from qwen3_retrieval.evaluation.models import Models
from qwen3_retrieval.evaluation.result import Setting, View
from qwen3_retrieval.evaluation.settings import Settings
from qwen3_retrieval.evaluation.systems import Systems
from qwen3_retrieval.evaluation.views import moves


def ask_question(
    question: str, passages: Sequence[Passage], settings: Settings | None = None
) -> View:
    """The first ten of both orders, each passage with its place in the other one.

    Args:
        question: The question.
        passages: The passages to search.
        settings: Models and number of candidates.

    Raises:
        ImportError: If a package of the extra `evaluation` is missing.
        ValueError: If the question is blank, or there are no passages.
        OSError: If a model cannot be found or read.
        ServerError: If a server fails.
    """
    check_installed()
    check_query(question)
    if not passages:
        msg = "there are no passages to search"
        raise ValueError(msg)
    settings = settings or Settings()
    dense = Setting(
        "dense",
        rerank=False,
        k=min(settings.k, len(passages)),
        dimensions=settings.dimensions,
        instruction=resolve_instruction(settings.instruction),
        max_length=settings.max_length,
    )
    texts = [passage.text for passage in passages]
    with Cache(settings.cache) as cache:
        models = Models(settings.pair, cache, progress=settings.progress)
        read = [passage.model_text for passage in passages]
        systems = Systems(read, [question], models, Lexical(texts))
        (before,) = systems.rank(dense, [0])
        (after,) = systems.rank(replace(dense, rerank=True), [0])
        models.close()
    return View("", question, None, None, moves(passages, before, after, {}))
