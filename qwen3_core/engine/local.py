"""Base class of embedders and rerankers whose model runs in this process."""

import sys
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qwen3_core.base import TextModel
from qwen3_core.engine.engine import Engine, held_engine, open_engine
from qwen3_core.engine.waiting import computed, result_of, run_here, time_limit
from qwen3_core.engine.worker import Stats
from qwen3_core.inputs import windows
from qwen3_core.model.packing import TokenSequence
from qwen3_core.prompts import resolve_instruction
from qwen3_core.settings import DEFAULT_MAX_LENGTH, Dtype, ModelKind, check_settings
from qwen3_core.tokenizer import Qwen3Tokenizer

if TYPE_CHECKING:
    from qwen3_core.model.description import Description

T = TypeVar("T")


class LocalModel(TextModel):
    """Settings, checked at construction, and a model in this process, loaded at first use.

    Pickles and copies contain the settings only; a copy uses the process's engine, or loads one.
    """

    def __init__(
        self,
        kind: ModelKind,
        model: str | Path,
        *,
        revision: str | None,
        device: str,
        dtype: Dtype,
        max_length: int | None,
        instruction: str | None,
        pack_tokens: int | None,
        timeout: float | None,
    ) -> None:
        check_settings(dtype=dtype, max_length=max_length, pack_tokens=pack_tokens, timeout=timeout)
        self._given = None if instruction is None else resolve_instruction(instruction)
        self._max_length = max_length
        self._pack_tokens = pack_tokens
        self._timeout = timeout
        self._source: dict[str, Any] = {
            "model": str(model),
            "kind": kind,
            "revision": revision,
            "device": device,
            "dtype": dtype,
        }
        # Held from now on, so that replacing a component by an equal one does not reload the model.
        self._engine = held_engine(**self._source)
        self._tokenizer: Qwen3Tokenizer | None = None
        """Loaded without the model, for counting tokens."""

    @property
    def engine(self) -> Engine:
        """The loaded model; loads it at first use.

        Raises:
            OSError: If the model cannot be found or read.
            ValueError: If it is not a Qwen3 model of the right kind, or has fewer positions than
                `max_length`.
        """
        engine = self._engine or open_engine(**self._source)
        if self._max_length is not None and self._max_length > engine.max_positions:
            msg = (
                f"max_length={self._max_length} is more than "
                f"max_position_embeddings={engine.max_positions} of {engine.name!r}"
            )
            raise ValueError(msg)
        self._engine = engine
        return engine

    @property
    def description(self) -> "Description":
        """The checkpoint's own settings, from its small files; loads no weights.

        Raises:
            OSError: If a file cannot be found, downloaded or read.
            ValueError: If the checkpoint is not supported.
        """
        if self._engine is not None:
            return self._engine.description
        from qwen3_core.model.description import describe

        return describe(self._source["model"], self._source["kind"], self._source["revision"])

    @property
    def max_length(self) -> int:
        """Maximum input length in tokens; loads the model.

        As given, else the smallest of 8192, the checkpoint's limit and max_position_embeddings.
        """
        if self._max_length is not None:
            return self._max_length
        engine = self.engine
        said = engine.description.max_length or DEFAULT_MAX_LENGTH
        return min(DEFAULT_MAX_LENGTH, said, engine.max_positions)

    def stats(self) -> Stats:
        """The engine's statistics, for all components that share it; loads the model."""
        return self.engine.worker.stats()

    def close(self) -> None:
        """Release the engine; it closes with its last user. The next call opens it again."""
        self._engine = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_engine": None, "_tokenizer": None}

    def _tokenizer_alone(self) -> Qwen3Tokenizer:
        if self._engine is not None:
            return self._engine.tokenizer
        if self._tokenizer is None:
            from qwen3_core.model.loading import load_tokenizer

            source = self._source
            self._tokenizer = load_tokenizer(
                source["model"], source["kind"], revision=source["revision"]
            )
        return self._tokenizer

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return run_here(call)

    async def _arun(self, call: Coroutine[Any, Any, T]) -> T:
        return await call

    async def _opened(self) -> Engine:
        """The engine. Loading it does not block the event loop, and timeouts exclude it."""
        if self._engine is not None:
            return self.engine
        return await computed(sys.maxsize, lambda: self.engine)

    async def _encode(
        self,
        engine: Engine,
        out: np.ndarray,
        texts: Sequence[str],
        sequences_of: Callable[[slice], list[TokenSequence]],
        finish: Callable[[np.ndarray, slice], np.ndarray],
        *,
        bulk: bool,
        progress: Callable[[int], object] | None,
        beside: int = 0,
    ) -> None:
        """Encode texts window by window; the next window is queued while one is computed.

        Args:
            engine: The loaded model.
            out: (n, ...) float32, filled with a row per text.
            texts: The texts; their lengths determine the windows.
            sequences_of: The token sequences of one window of the texts.
            finish: Rows of `out` from a window's last hidden states, (m, hidden_size) float32.
            bulk: Whether interactive work may overtake it.
            progress: Called with the number of texts after each pack.
            beside: Characters that `sequences_of` tokenises in addition to the texts.

        Raises:
            TimeoutError: If it takes longer than `timeout`.
        """
        pending: deque[tuple[slice, int, Future[np.ndarray]]] = deque()
        admission = engine.worker.admission(bulk=bulk)

        async def submit(window: slice) -> None:
            size = sum(map(len, texts[window]))
            admitted = admission.request(size)
            try:
                await result_of(admitted)
                sequences = await computed(size + beside, partial(sequences_of, window))
                future = engine.worker.submit(
                    sequences, bulk=bulk, pack_tokens=self._pack_tokens, on_progress=progress
                )
            except BaseException:
                admission.withdraw(size, admitted)
                raise
            # Released when done, not when collected: this call may itself wait for admission.
            future.add_done_callback(lambda _: admission.release(size))
            pending.append((window, size, future))

        async def collect() -> None:
            window, size, future = pending[0]
            states = await result_of(future)

            def fill() -> None:
                out[window] = finish(states, window)

            await computed(size, fill)
            pending.popleft()

        try:
            async with time_limit(self._timeout):
                for window in windows(texts):
                    await submit(window)
                    if len(pending) > 1:
                        await collect()
                while pending:
                    await collect()
        except TimeoutError:
            msg = f"{self._source['model']!r} gave no result within timeout={self._timeout} seconds"
            raise TimeoutError(msg) from None
        finally:
            for _, _, future in pending:
                future.cancel()
