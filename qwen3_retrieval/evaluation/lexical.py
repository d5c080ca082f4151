"""BM25 by bm25s, the baseline for dense retrieval."""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

_WORD: Final = re.compile(r"\w+")
_SIGNS: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN: Final = re.compile(f"[{_SIGNS}]+|[^{_SIGNS}]+")
_CJK: Final = re.compile(f"[{_SIGNS}]")


def words(text: str) -> list[str]:
    """Lower-case words; Chinese, Japanese and Korean as pairs of neighbouring characters.

    Lucene's CJK analyzer indexes the same pairs. There is no stemming and no stop word list,
    because the language is unknown.
    """
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        for run in _RUN.findall(word):
            if _CJK.match(run) and len(run) > 1:
                found += [run[i : i + 2] for i in range(len(run) - 1)]
            else:
                found.append(run)
    return found


class Lexical:
    """An index of passages; k1 and b are bm25s's own defaults, 1.5 and 0.75, scores Lucene's."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Index the passages."""
        import bm25s  # type: ignore[import-untyped]

        self._bm25 = bm25s.BM25()
        self._bm25.index([words(text) or [""] for text in texts], show_progress=False)

    @property
    def size(self) -> int:
        """Bytes of the index."""
        arrays = (self._bm25.scores[name] for name in ("data", "indices", "indptr"))
        return sum(int(array.nbytes) for array in arrays)

    def search(self, query: str, k: int) -> np.ndarray:
        """Positions of up to k passages that share a word with the query, best first: (n,) int."""
        known = [word for word in words(query) if word in self._bm25.vocab_dict]
        if not known:
            return np.empty(0, np.int64)
        return top(self._bm25.get_scores(known), k, above=0.0)


def top(scores: np.ndarray, k: int, above: float = -np.inf) -> np.ndarray:
    """Positions of the k highest scores above a limit, best first; ties keep their order."""
    k = min(k, len(scores))
    if k < len(scores):
        # Among ties at the cut, the lowest positions are kept, not arbitrary ones.
        border = np.partition(scores, len(scores) - k)[len(scores) - k]
        sure = np.flatnonzero(scores > border)
        tied = np.flatnonzero(scores == border)[: k - len(sure)]
        chosen = np.sort(np.concatenate([sure, tied]))
    else:
        chosen = np.arange(len(scores))
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    best: np.ndarray = chosen[scores[chosen] > above]
    return best
