"""Compares a dtype with float32: vectors and log-odds of the same texts in both.

    python benchmarks/dtypes.py
    python benchmarks/dtypes.py --model random-0.6b-shape --questions 1 --dtype int8
    python benchmarks/dtypes.py --embedding HUB_NAME --reranker HUB_NAME --device cuda

Takes the first passages of `examples/corpus` and the questions of `examples/_questions.py`. By
default the models are the bundled toys.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from _questions import QUESTIONS  # noqa: E402

from benchmarks.checkpoints import random_pair  # noqa: E402
from qwen3_core import Embedder, Reranker  # noqa: E402
from qwen3_core.settings import TINY, Dtype  # noqa: E402
from qwen3_retrieval.documents.cutting import split_at_headings  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=[TINY, "random-0.6b-shape"], default=TINY)
    parser.add_argument("--embedding", help="hub name or folder, in place of --model's")
    parser.add_argument("--reranker", help="hub name or folder, in place of --model's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "int8"])
    parser.add_argument("--passages", type=int, default=24)
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    options = parser.parse_args()
    texts = [
        passage
        for path in sorted((ROOT / "examples" / "corpus").glob("*.md"))
        for passage in split_at_headings(path.read_text("utf-8"))
        if passage.strip()
    ][: options.passages]
    questions = list(QUESTIONS)[: options.questions]
    embedding, reranker = options.embedding or TINY, options.reranker or TINY
    with tempfile.TemporaryDirectory() as folder:
        if options.model != TINY:
            made = random_pair(Path(folder))
            embedding, reranker = options.embedding or made[0], options.reranker or made[1]
        print(f"{len(texts)} passages on {options.device}, {options.dtype} against float32")
        dtypes: tuple[Dtype, Dtype] = ("float32", options.dtype)
        compare_vectors(texts, str(embedding), options.device, dtypes)
        try:
            compare_scores(texts, questions, str(reranker), options.device, dtypes)
        except ValueError as error:  # not every model tolerates int8
            print(error)


def compare_vectors(texts: list[str], model: str, device: str, dtypes: tuple[Dtype, Dtype]) -> None:
    """Print the distances of each text's two vectors."""
    exact, fast = (
        Embedder(model, dtype=dtype, device=device).embed_documents(texts).astype(np.float64)
        for dtype in dtypes
    )
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(fast, axis=1)
    distances = 1 - (exact * fast).sum(1) / lengths
    print(f"1 - cosine: mean {distances.mean():.1e}, largest {distances.max():.1e}")


def compare_scores(
    texts: list[str],
    questions: list[str],
    model: str,
    device: str,
    dtypes: tuple[Dtype, Dtype],
) -> None:
    """Print the differences between the two log-odds of each question and text."""
    rerankers = [Reranker(model, dtype=dtype, device=device) for dtype in dtypes]
    exact, fast = (
        np.array([reranker.score(texts, question) for question in questions])
        for reranker in rerankers
    )
    moved = np.abs(exact - fast)
    span = np.ptp(exact, axis=1).mean()
    same = (exact.argmax(1) == fast.argmax(1)).sum()
    print(
        f"log-odds: root mean square {np.sqrt((moved**2).mean()):.1e}, largest {moved.max():.1e}; "
        f"those of one question span {span:.1f}\n"
        f"the best passage is the same for {same} of {len(questions)} questions"
    )


if __name__ == "__main__":
    main()
