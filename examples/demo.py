"""The main job through LangChain and through LlamaIndex: dense search, reranking, sources.

    python examples/demo.py
    python examples/demo.py --question "How long should a chunk be?"

It needs no network: the corpus and the small models ship with the package.
"""

from collections.abc import Mapping

from _corpus import load_passages
from _output import (
    Hit,
    busy,
    console,
    explain_scores,
    say,
    show_next_steps,
    show_question,
    show_settings,
    show_tally,
)
from _questions import QUESTIONS
from _shared import BUNDLED_CORPUS, QUESTION, Settings, run

from qwen3_retrieval.comparison import Move, by_first_stage, show

Results = list[Move[Hit]]
"""The candidates of a question, in the reranker's order."""


def main(settings: Settings) -> None:
    say("Two-stage retrieval: dense search finds candidates, a reranker orders them.", "bold")
    say()
    # Imported here and not above, so that something is on the screen meanwhile.
    with busy("loading LangChain"):
        import compare
        import langchain_rag

        from qwen3_retrieval.ingest import _langchain
    passages = load_passages(settings, _langchain.splitters)
    show_settings(settings, passages)
    with busy("embedding"):
        store = langchain_rag.open_store(settings, passages)
    with busy("loading LlamaIndex"):
        import llama_index_rag

        from qwen3_retrieval.ingest import _llama_index
    passages = load_passages(settings, _llama_index.splitters)
    with busy("embedding"):
        index = llama_index_rag.open_index(settings, passages)

    shown = {settings.question or QUESTION: ""}
    if settings.question is None and settings.corpus == str(BUNDLED_CORPUS):
        results = {}
        for i, question in enumerate(QUESTIONS, start=1):
            with busy(f"question {i} of {len(QUESTIONS)}"):
                results[question] = compare.search(settings, store, question, QUESTIONS[question])
        show_totals(results)
        shown = extremes(results)

    for question, remark in shown.items():
        answer = QUESTIONS.get(question)
        first = compare.search(settings, store, question, answer)
        second = llama_index_rag.search(settings, index, question, answer)
        if order(first) == order(second):
            show_question(question, f"{remark}LangChain and LlamaIndex return the same order.")
            show(first, settings.top_n, console)
        else:
            show_question(question, f"{remark}LangChain returns:")
            show(first, settings.top_n, console)
            say("LlamaIndex returns:", "dim")
            show(second, settings.top_n, console)
    explain_scores()

    question = next(iter(shown))
    show_question(question)
    sent = langchain_rag.answer(settings, store, question)
    llama_index_rag.answer(settings, index, question, shown=sent)
    show_next_steps(settings)


def show_totals(results: Mapping[str, Results]) -> None:
    """Print how often each stage put the passage that answers among the first 1, 3 and all."""
    k = max(map(len, results.values()))
    limits = sorted({1, min(3, k), k})
    before, after = zip(*map(ranks, results.values()), strict=True)
    say()
    say(
        f"{len(results)} questions, worded differently from the corpus. How often the right "
        "passage (* below) comes"
    )
    show_tally(
        {
            stage: [sum(r is not None and r <= limit for r in column) for limit in limits]
            for stage, column in (("dense search", before), ("then reranked", after))
        },
        limits,
    )


def extremes(results: Mapping[str, Results]) -> dict[str, str]:
    """The question that reranking helped most and the one that it hurt most, each with why."""
    gains = {}
    for question, found in results.items():
        before, after = ranks(found)
        if before is not None and after is not None:
            gains[question] = 1 / after - 1 / before
    if not gains:  # with so small a --top-k that nothing was found
        return dict.fromkeys(list(results)[:1], "")
    best, worst = max(gains, key=gains.__getitem__), min(gains, key=gains.__getitem__)
    helped = "Reranking helped most here. " if gains[best] > 0 else "Reranking helped nowhere. "
    hurt = "Reranking hurt most here. " if gains[worst] < 0 else "Reranking hurt nowhere. "
    return {best: helped, worst: hurt}


def ranks(found: Results) -> tuple[int | None, int | None]:
    """Ranks of the passage that answers, in both orders; None if it is no candidate."""
    right = [move for move in found if move.relevant]
    before = min((move.before for move in right if move.before), default=None)
    return before, min((move.after for move in right if move.after), default=None)


def order(found: Results) -> list[list[str]]:
    """The ids, which the frameworks share, in the order of each stage."""
    return [[move.passage.id for move in each] for each in (by_first_stage(found), found)]


if __name__ == "__main__":
    run(main, __doc__)
