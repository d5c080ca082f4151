"""LlamaIndex adapter of `qwen3_retrieval.evaluation`: results of retrievers and query engines."""

from collections.abc import Callable

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from qwen3_retrieval.evaluation.sources import Hit


def searcher(source: BaseRetriever | BaseQueryEngine) -> Callable[[str], list[Hit]]:
    """A search function for a retriever or a query engine.

    A query engine returns its nodes, after postprocessors, without an answer. If it does not
    support that, it has to answer, which calls its LLM.

    Raises:
        TypeError: If it is neither.
    """
    if not isinstance(source, (BaseRetriever, BaseQueryEngine)):
        msg = (
            f"a {type(source).__name__} is no retriever or query engine: pass "
            "as_retriever() or as_query_engine() of an index"
        )
        raise TypeError(msg)

    def search(question: str) -> list[Hit]:
        nodes = _nodes(source, QueryBundle(question))
        return [Hit(n.node.get_content(), n.node.node_id, n.node.metadata) for n in nodes]

    return search


def _nodes(source: BaseRetriever | BaseQueryEngine, query: QueryBundle) -> list[NodeWithScore]:
    if isinstance(source, BaseRetriever):
        return source.retrieve(query)
    try:
        return source.retrieve(query)
    except NotImplementedError:  # it retrieves and answers in one step
        return source.query(query).source_nodes
