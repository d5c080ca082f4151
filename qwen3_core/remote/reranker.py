"""Scores from a server with a rerank API."""

import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qwen3_core.base import BaseReranker
from qwen3_core.common.docstrings import parameters_documented
from qwen3_core.common.progress import progress_bar
from qwen3_core.inputs import by_query, documents_cut, fit_query, in_thread_if_long, windows
from qwen3_core.prompts import (
    DEFAULT_TASK,
    RERANK_SUFFIX,
    TASKS,
    rerank_document,
    rerank_prefix_text,
    resolve_instruction,
)
from qwen3_core.remote.checks import IRRELEVANT, QUERY, RELEVANT, check_rerank
from qwen3_core.remote.errors import ServerError, ServerWarning
from qwen3_core.remote.model import Facts, RemoteModel
from qwen3_core.remote.replies import in_order, numbers, tokens_read
from qwen3_core.remote.server import Dialect, Limits, Server
from qwen3_core.settings import DEFAULT_MAX_LENGTH, DEFAULT_RERANKER_MODEL
from qwen3_core.tokenizer import Qwen3Tokenizer

TEMPLATE_FILE = Path(__file__).with_name("qwen3_reranker.jinja")
"""Chat template for `vllm serve --chat-template`. vLLM's own example lacks the last newline."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """One request: a query and some of its documents, as sent."""

    query: str
    documents: list[str]
    members: list[int]
    """Positions of the documents among all pairs."""


@parameters_documented()
class RemoteReranker(RemoteModel, BaseReranker):
    """A Qwen3 reranking model on a server, with the interface of `Reranker`.

    The client truncates documents, so that the server never truncates the end of the prompt. A
    space is inserted into control tokens in a text, because servers would interpret them.

    Safe to share between threads and event loops.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_RERANKER_MODEL,
        *,
        base_url: str,
        api_key: str | None = None,
        server: Server | str | None = None,
        revision: str | None = None,
        max_length: int | None = None,
        instruction: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Check the settings; sends nothing to the server.

        Raises:
            ValueError: If an argument is out of range, or the server's kind cannot run the model.
        """
        super().__init__(
            "reranker",
            model,
            base_url,
            api_key=api_key,
            server=server,
            revision=revision,
            max_length=max_length,
            instruction=instruction,
            timeout=timeout,
        )
        if self._server.kind == "tei":
            msg = (
                "Text Embeddings Inference cannot run Qwen3 rerankers (it has no classifier head "
                "for Qwen3): serve the reranker with vLLM, SGLang or llama.cpp"
            )
            raise ValueError(msg)

    def _limits(self, dialect: Dialect) -> Limits:
        return dialect.rerank

    async def _check(self, facts: Facts) -> Facts:
        tokenizer = await self._load_tokenizer()
        task = resolve_instruction(None)
        query, documents = QUERY, [RELEVANT, IRRELEVANT]
        if self._server.template == "client":
            query, documents = (
                rerank_prefix_text(task, query),
                [_document_and_suffix(text) for text in documents],
            )
        scores, tokens = await self._ask(facts, query, documents, task)
        # Some servers ignore the request for log-odds.
        facts = replace(facts, log_odds=facts.log_odds and not _probabilities(scores))
        prefix = tokenizer.rerank_prefix(task, QUERY)
        rows, _ = tokenizer.rerank_documents([RELEVANT, IRRELEVANT], DEFAULT_MAX_LENGTH)
        expected = 2 * len(prefix) + sum(map(len, rows))
        bare = [len(tokenizer.encode(text)) for text in (QUERY, QUERY, RELEVANT, IRRELEVANT)]
        hint = self._template_hint(facts)
        check_rerank(_log_odds(facts, scores), tokens, expected, expected - sum(bare), hint)
        if facts.kind == "vllm" and self._server.template == "server":
            await self._check_end_of_template(tokenizer)
        return facts

    async def _check_end_of_template(self, tokenizer: Qwen3Tokenizer) -> None:
        """Warn if vLLM's template ends with other tokens than the published prompt.

        Neither the number of tokens nor the scores show that reliably.
        """
        roles = {"query": QUERY, "document": RELEVANT}
        body = {
            "model": self._served_model,
            "messages": [{"role": role, "content": text} for role, text in roles.items()],
            "add_generation_prompt": False,
        }
        try:
            url = self.base_url.removesuffix("/v1") + "/tokenize"
            reply = await self._client.post(url, body, list(roles.values()))
            end = tuple(reply["tokens"])[-len(tokenizer.rerank_suffix) :]
        except (ServerError, KeyError, TypeError):
            return  # older versions lack it, and this check is optional
        if end != tokenizer.rerank_suffix:
            msg = (
                f"the chat template of {self.base_url} ends in the tokens {end}, not in those that "
                f"the model was trained with, {tokenizer.rerank_suffix}; scores are shifted. Serve "
                f"it with --chat-template {TEMPLATE_FILE}"
            )
            warnings.warn(msg, ServerWarning, stacklevel=2)

    def _template_hint(self, facts: Facts) -> str:
        if facts.kind == "vllm":
            return (
                f"vLLM: --chat-template {TEMPLATE_FILE} with Server(template='server'), or no "
                "chat template with Server(template='client')."
            )
        return "Server(template='client') is for a server that applies no prompt template."

    async def _score(
        self, pairs: list[tuple[str, str]], task: str | None, show_progress: bool
    ) -> np.ndarray:
        log_odds = np.empty(len(pairs), dtype=np.float32)
        if not pairs:
            return log_odds
        facts = await self._look()
        task = (await self._load_tokenizer()).without_control_tokens(resolve_instruction(task))
        with progress_bar("Reranking", len(pairs), show_progress) as progress:

            async def ask(batch: _Batch) -> None:
                scores, _ = await self._ask(facts, batch.query, batch.documents, task)
                log_odds[batch.members] = _log_odds(facts, scores)
                if progress is not None:
                    progress(len(batch.members))

            await self._share_out(self._batches(facts, pairs, task), ask)
        return log_odds

    async def _batches(
        self, facts: Facts, pairs: list[tuple[str, str]], task: str
    ) -> AsyncIterator[_Batch]:
        """The pairs to send, in batches of one query within the server's limits."""
        tokenizer, max_length = await self._load_tokenizer(), self._reads(facts)
        documents = [document for _, document in pairs]
        for window in windows(documents):
            for query, members in by_query(pairs, window).items():
                texts = [documents[i] for i in members]
                prepare = partial(self._prepare, tokenizer, query, texts, task, max_length)
                size = len(query) + sum(map(len, texts))
                sent_query, prepared, cut = await in_thread_if_long(size, prepare)
                if cut:
                    self._warn_cut(documents_cut([members[i] for i in cut], max_length))
                for part in self._requests(facts, [count for _, count in prepared]):
                    yield _Batch(sent_query, [text for text, _ in prepared[part]], members[part])

    def _prepare(
        self,
        tokenizer: Qwen3Tokenizer,
        query: str,
        texts: list[str],
        task: str,
        max_length: int,
    ) -> tuple[str, list[tuple[str, int]], list[int]]:
        """Query and documents to send, with the prompts' tokens, and which were truncated."""
        query = tokenizer.without_control_tokens(query)
        query, prefix = fit_query(tokenizer, task, query, max_length, self._warn_cut)
        extra = len(prefix) + len(tokenizer.rerank_suffix)
        room = max_length - extra
        prompts = [rerank_document(tokenizer.without_control_tokens(text)) for text in texts]
        counts = [len(ids) for ids in tokenizer.encode_many(prompts)]
        cut = [i for i, count in enumerate(counts) if count > room]
        for i in cut:
            prompts[i], counts[i] = tokenizer.cut_text(prompts[i], room), room
        if self._server.template == "client":
            query = rerank_prefix_text(task, query)
            sent = [text + RERANK_SUFFIX for text in prompts]
        else:
            sent = [text[1:] for text in prompts]
        return query, [(s, count + extra) for s, count in zip(sent, counts, strict=True)], cut

    async def _ask(
        self, facts: Facts, query: str, documents: list[str], task: str
    ) -> tuple[np.ndarray, int | None]:
        """One request's scores in the order of its documents, and the tokens read."""
        dialect = facts.dialect
        if facts.kind == "llama.cpp":  # fills its template by text replacement, query first
            query = query.replace("{document}", "{ document}")
        body: dict[str, Any] = {
            "model": self._served_model,
            "query": query,
            "documents": documents,
            **dialect.extra,
        }
        if self._server.template == "server":
            if dialect.instruction_key is not None:
                body[dialect.instruction_key] = task
            elif task != TASKS[DEFAULT_TASK]:
                msg = (
                    f"{self.base_url} ({facts.kind}) cannot be told an instruction: its template "
                    "has the default one. Leave instruction out, or use Server(template='client') "
                    "with a server that applies no prompt template."
                )
                raise ValueError(msg)
        reply = await self._client.post(dialect.path, body, [query, *documents])
        try:
            scores = _scores(reply, len(documents))
        except ValueError as error:
            count = len(documents)
            msg = f"{self.base_url} answered {count} documents with an invalid reply: {error}"
            raise ServerError(msg) from None
        finite = np.abs(scores) <= np.finfo(np.float32).max
        if not finite.all():
            bad = int(np.flatnonzero(~finite)[0])
            msg = f"{self.base_url} returned the score {scores[bad]} for document {bad}"
            raise FloatingPointError(msg)
        return scores, tokens_read(reply)


def _document_and_suffix(document: str) -> str:
    return rerank_document(document) + RERANK_SUFFIX


def _scores(reply: Any, count: int) -> np.ndarray:
    """The reply's scores in the order of the request: (count,) float64.

    Raises:
        ValueError: If the reply is malformed.
    """
    results = reply.get("results") if isinstance(reply, dict) else reply
    entries = in_order(results, count)
    for i, entry in enumerate(entries):
        if not {"relevance_score", "score"} & entry.keys():
            msg = f"no score for document {i}"
            raise ValueError(msg)
    return numbers([entry.get("relevance_score", entry.get("score")) for entry in entries], 1)


def _probabilities(scores: np.ndarray) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _log_odds(facts: Facts, scores: np.ndarray) -> np.ndarray:
    """Log-odds of scores: float32; probabilities 0 and 1 become the nearest floats between."""
    if facts.log_odds:
        return scores.astype(np.float32)
    if not _probabilities(scores):
        msg = (
            f"the server returned {scores.min():.4g} to {scores.max():.4g} where probabilities, "
            "from 0 to 1, were expected: set the server's kind, e.g. server='vllm'"
        )
        raise ServerError(msg)
    smallest, largest = np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg
    inside = np.clip(scores, smallest, largest)
    result: np.ndarray = (np.log(inside) - np.log1p(-inside)).astype(np.float32)
    return result
