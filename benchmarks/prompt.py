"""What the prompt is worth: the same models on the same questions, with and without it.

    python benchmarks/prompt.py
    python benchmarks/prompt.py --embedding Qwen/Qwen3-Embedding-0.6B \
        --reranker Qwen/Qwen3-Reranker-0.6B

Asks the 24 questions of `examples/_questions.py` of the corpus in `examples/corpus`. The variants
of the prompt are those that are met in the wild. By default the models are the bundled toys.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwen3_core import Embedder
from qwen3_core.prompts import RERANK_SUFFIX, TASKS, rerank_prompt
from qwen3_core.settings import TINY
from qwen3_retrieval.documents.cutting import split_at_headings, title_of

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
BUNDLED = ROOT / "qwen3_core" / "tiny"
sys.path.insert(0, str(EXAMPLES))

from _questions import QUESTIONS  # noqa: E402

TASK = TASKS["web_search"]
CANDIDATES = 10

PROMPTS: dict[str, Callable[[str, str], str]] = {
    "as published": lambda query, text: rerank_prompt(TASK, query, text),
    "one newline short": lambda query, text: rerank_prompt(TASK, query, text).removesuffix("\n"),
    "end cut off": lambda query, text: rerank_prompt(TASK, query, text).removesuffix(RERANK_SUFFIX),
    "query and document alone": lambda query, text: f"{query}\n{text}",
}
"""The reranker's prompt, by variant."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--embedding", default=TINY)
    parser.add_argument("--reranker", default=TINY)
    options = parser.parse_args()

    texts = [
        passage
        for path in sorted((EXAMPLES / "corpus").glob("*.md"))
        for passage in split_at_headings(path.read_text("utf-8"))
        if passage.strip()
    ]
    titles = [title_of(text) for text in texts]
    questions = list(QUESTIONS)
    right = [titles.index(QUESTIONS[question]) for question in questions]

    embedder = Embedder(options.embedding, dtype="float32")
    documents = embedder.embed_documents(texts)
    dense = {
        "queries behind the instruction": embedder.embed_queries(questions),
        "queries bare": embedder.embed_documents(questions),
        "documents behind it too": embedder.embed_queries(questions),
    }
    print(f"{len(questions)} questions, {len(texts)} passages; the right one comes\n")
    print(f"{'dense search':32}{'first':>8}{'in 3':>8}{'in 10':>8}")
    orders = {}
    for name, queries in dense.items():
        against = embedder.embed_queries(texts) if name == "documents behind it too" else documents
        orders[name] = np.argsort(-(queries @ against.T), axis=1, kind="stable")
        show(name, [list(order).index(i) for order, i in zip(orders[name], right, strict=True)])

    candidates = orders["queries behind the instruction"][:, :CANDIDATES]
    print(f"\n{f'best {CANDIDATES}, reranked':32}{'first':>8}{'in 3':>8}{'in 10':>8}{'shift':>8}")
    published = None
    for name, scores in rerank(options.reranker, questions, texts, candidates).items():
        published = scores if published is None else published
        ranked = np.take_along_axis(candidates, np.argsort(-scores, axis=1, kind="stable"), axis=1)
        places = [
            list(order).index(i) if i in order else CANDIDATES
            for order, i in zip(ranked, right, strict=True)
        ]
        show(name, places, float(np.abs(scores - published).mean()))
    print("\nshift: mean change of a passage's log-odds against the published prompt")


def rerank(
    model: str, questions: Sequence[str], texts: Sequence[str], candidates: np.ndarray
) -> dict[str, np.ndarray]:
    """Log-odds of each question's candidates, (questions, candidates), by variant of the prompt."""
    # With plain transformers: our own reranker supports only the published prompt.
    source = str(BUNDLED / "reranker") if model == TINY else model
    tokenizer = AutoTokenizer.from_pretrained(source)
    network: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    found = {}
    for name, prompt in PROMPTS.items():
        scores = np.empty(candidates.shape, dtype=np.float32)
        for row, column in np.ndindex(candidates.shape):
            text = prompt(questions[row], texts[int(candidates[row, column])])
            ids = tokenizer.encode(text, add_special_tokens=False)
            with torch.inference_mode():
                logits = network(torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
            scores[row, column] = float(logits[yes] - logits[no])
        found[name] = scores
    return found


def show(name: str, places: Sequence[int], shift: float | None = None) -> None:
    counts = "".join(f"{sum(place < limit for place in places):8}" for limit in (1, 3, 10))
    print(f"{name:32}{counts}" + ("" if shift is None else f"{shift:8.2f}"))


if __name__ == "__main__":
    main()
