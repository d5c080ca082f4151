"""LangChain adapter of `qwen3_retrieval.evaluation`: the results of a retriever."""

from collections.abc import Callable
from typing import Any

from langchain_core.documents import Document
from langchain_core.runnables import Runnable

from qwen3_retrieval.evaluation.sources import Hit


def searcher(source: Runnable[str, Any]) -> Callable[[str], list[Hit]]:
    """A search function for a retriever, or another runnable from a string to documents.

    Raises:
        TypeError: If it is not a runnable; during a search, if it does not return documents.
    """
    if not isinstance(source, Runnable):
        msg = f"a {type(source).__name__} is no retriever: pass as_retriever() of a vector store"
        raise TypeError(msg)

    def search(question: str) -> list[Hit]:
        found = source.invoke(question)
        if not isinstance(found, list) or not all(isinstance(d, Document) for d in found):
            msg = f"{type(source).__name__} returned no list of documents: pass its retriever"
            raise TypeError(msg)
        return [Hit(each.page_content, each.id, each.metadata) for each in found]

    return search
