"""Dense search beside reranking: the same candidates in the order of each stage.

    python examples/compare.py --question "Why do I get fewer results than I asked for?"
    python examples/compare.py --corpus milvus-docs --model Qwen/Qwen3-Embedding-0.6B

The dense score is the inner product of the vectors of question and passage (their cosine, as both
have length 1). The reranker's score is the probability that the passage answers the question.
"""

from dataclasses import replace

from _corpus import load_passages
from _output import (
    Hit,
    explain_scores,
    show_comparison,
    show_next_steps,
    show_question,
    show_settings,
)
from _shared import QUESTION, Settings, run
from langchain_milvus import Milvus
from langchain_rag import open_store, to_hit

from langchain_qwen3 import Qwen3Reranker
from qwen3_retrieval.ingest._langchain import splitters


def main(settings: Settings) -> None:
    passages = load_passages(settings, splitters)
    show_settings(settings, passages)
    store = open_store(settings, passages)

    question = settings.question or QUESTION
    show_question(question)
    dense, reranked = search(settings, store, question)
    show_comparison(dense, reranked, settings.top_n)
    explain_scores()
    show_next_steps(settings)


def search(settings: Settings, store: Milvus, question: str) -> tuple[list[Hit], list[Hit]]:
    """The candidates for a question, in the order of dense search and in that of the reranker."""
    found = store.similarity_search_with_score(question, k=settings.top_k)
    dense = [to_hit(document, score) for document, score in found]
    reranker = Qwen3Reranker(
        model=settings.reranker,
        dtype=settings.dtype,
        base_url=settings.reranker_url,
        instruction=settings.instruction,
    )
    ranking = reranker.rerank([document for document, _ in found], question)
    return dense, [replace(dense[r.index], score=r.score) for r in ranking]


if __name__ == "__main__":
    run(main, __doc__)
