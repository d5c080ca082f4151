"""A system under measurement in a process of its own, with its own memory."""

import contextlib
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from qwen3_core.settings import Dtype

METHODS = ("rerank", "embed", "query", "callers", "index", "ask", "overhead")
"""Methods that a system may have."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints that all systems load."""

    embedding: str
    reranker: str
    dtype: Dtype
    device: str = "cpu"


class Peer:
    """One system in a separate process, called over a pipe."""

    def __init__(self, system: Callable[[Checkpoints], Any], given: Checkpoints) -> None:
        """Start it.

        Args:
            system: Class of the system.
            given: What it loads.

        Raises:
            RuntimeError: If the system is not installed or cannot load the checkpoints.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, system, given), daemon=False)
        self._process.start()
        theirs.close()
        self.offers: set[str]
        self.version: str
        self.offers, self.version = self._receive()

    def run(self, method: str, *arguments: Any) -> tuple[float, np.ndarray, float]:
        """Call a method of the system: seconds, its answer, and peak memory of the call in GiB.

        The memory is that of the process and all its children, and on CUDA that of the GPU; 0 if
        unknown. On CUDA the seconds include the GPU's work.

        Raises:
            RuntimeError: If it fails, or its process has ended.
        """
        try:
            self._pipe.send((method, arguments))
        except BrokenPipeError:
            msg = "its process ended"
            raise RuntimeError(msg) from None
        seconds, answer, memory = self._receive()
        return seconds, answer, memory

    def close(self) -> None:
        """End the process if it still runs."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(None)
        self._process.join()

    def _receive(self) -> Any:
        try:
            outcome = self._pipe.recv()
        except EOFError:
            outcome = RuntimeError("its process ended")
        if isinstance(outcome, Exception):
            raise RuntimeError(str(outcome)) from outcome
        return outcome


def _serve(pipe: Connection, load: Callable[[Checkpoints], Any], given: Checkpoints) -> None:
    """Load a system and answer calls until None comes."""
    try:
        system = load(given)
    except Exception as error:  # noqa: BLE001 - the parent process reports it
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
        return
    offers = {name for name in METHODS if hasattr(system, name)}
    try:
        pipe.send((offers, getattr(system, "version", "")))
        while (call := pipe.recv()) is not None:
            method, arguments = call
            forget_peaks()
            synchronize()
            begin = time.perf_counter()
            try:
                answer = getattr(system, method)(*arguments)
                synchronize()
                pipe.send((time.perf_counter() - begin, answer, peak()))
            except Exception as error:  # noqa: BLE001 - the same
                pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
    except (BrokenPipeError, EOFError):
        pass  # the parent process was killed
    finally:
        if hasattr(system, "close"):
            system.close()


def _gpu() -> Any:
    """`torch.cuda` if this process computes with it, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def synchronize() -> None:
    """Wait until the GPU has computed all that was asked of it, if this process uses one."""
    if (gpu := _gpu()) is not None:
        gpu.synchronize()


def _family(process: str = "self") -> list[Path]:
    """Folders in /proc of a process and of all its descendants."""
    folder = Path("/proc", process)
    found = [folder]
    for children in folder.glob("task/*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended
            for child in children.read_text().split():
                found += _family(child)
    return found


def forget_peaks() -> None:
    """Reset the peak memory of this process and its descendants, if Linux allows it."""
    if (gpu := _gpu()) is not None:
        gpu.reset_peak_memory_stats()
    if sys.platform == "linux":
        for folder in _family():
            with contextlib.suppress(OSError):
                (folder / "clear_refs").write_text("5")


def peak() -> float:
    """Sum of the peaks of resident memory, and of the GPU's, in GiB since then; 0 if unknown."""
    of_gpu: float = (gpu.max_memory_allocated() if (gpu := _gpu()) is not None else 0) / 2**30
    if sys.platform != "linux":
        return of_gpu
    total = 0
    for folder in _family():
        with contextlib.suppress(OSError):  # a process that has ended
            for line in (folder / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1])
    return total / 2**20 + of_gpu
