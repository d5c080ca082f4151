"""Dense search beside reranking: the same candidates in the order of each stage.

    python examples/compare.py --question "Why do I get fewer results than I asked for?"
    python examples/compare.py --corpus milvus-docs --model Qwen/Qwen3-Embedding-0.6B

The dense score is the inner product of the vectors of question and passage (their cosine, as both
have length 1). The reranker's score is the probability that the passage answers the question.
"""

from _corpus import load_passages
from _output import (
    Hit,
    console,
    explain_scores,
    show_next_steps,
    show_question,
    show_settings,
)
from _shared import QUESTION, Settings, run
from langchain_milvus import Milvus
from langchain_rag import open_store, to_hit

from langchain_qwen3 import Qwen3Reranker
from qwen3_retrieval.comparison import Move, moves, show
from qwen3_retrieval.ingest._langchain import splitters


def main(settings: Settings) -> None:
    passages = load_passages(settings, splitters)
    show_settings(settings, passages)
    store = open_store(settings, passages)

    question = settings.question or QUESTION
    show_question(question)
    show(search(settings, store, question), settings.top_n, console)
    explain_scores()
    show_next_steps(settings)


def search(
    settings: Settings, store: Milvus, question: str, answer: str | None = None
) -> list[Move[Hit]]:
    """The candidates for a question, in both orders; the one with the title `answer` is marked."""
    found = store.similarity_search_with_score(question, k=settings.top_k)
    reranker = Qwen3Reranker(
        model=settings.reranker,
        dtype=settings.dtype,
        base_url=settings.reranker_url,
        instruction=settings.instruction,
    )
    ranking = reranker.rerank([document for document, _ in found], question)
    hits = [to_hit(document, score) for document, score in found]
    return moves(hits, [hit.score for hit in hits], ranking, lambda hit: hit.title == answer)


if __name__ == "__main__":
    run(main, __doc__)
