"""Many callers, one model: who is served when, and what happens to calls that end early."""

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import qwen3_core.embedder
from qwen3_core import Embedder, EngineClosedError, Reranker
from qwen3_core.engine import worker
from qwen3_core.model import buffers
from tests.conftest import PATIENCE, ROOT, TINY

DOCUMENTS = [f"Milvus fact number {i}: segments are sealed and flushed. " * 3 for i in range(40)]


@pytest.fixture
def embedder(tmp_path):
    """An embedder with an engine of its own, in float32, with small packs."""
    folder = tmp_path / "embedding"
    folder.symlink_to(TINY / "embedding")
    with Embedder(folder, dtype="float32", pack_tokens=128) as embedder:
        embedder.embed_queries(["warm up"])
        yield embedder


class Gate:
    """Lets forward passes through one by one, and records what is in them."""

    def __init__(self, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
        encoder = embedder.engine.encoder
        self.packs: list[int] = []
        self.entered = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)
        self._run = encoder.run
        monkeypatch.setattr(encoder, "run", self.run)

    def run(self, pack):
        self.packs.append(len(pack.members))
        self.entered.release()
        assert self._permits.acquire(timeout=PATIENCE)
        return self._run(pack)

    def open(self, packs: int = 10_000) -> None:
        self._permits.release(packs)

    def wait_for_pack(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE)


@pytest.fixture
def gate(embedder, monkeypatch):
    gate = Gate(embedder, monkeypatch)
    yield gate
    gate.open()


def in_thread(function, *args):
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, *args)
    pool.shutdown(wait=False)
    return future


def wait_until(condition) -> None:
    """The test's own timeout ends the wait."""
    while not condition():
        time.sleep(0.005)


def queued(embedder: Embedder) -> int:
    return embedder.stats().queued_requests


def test_waiting_calls_share_a_pack(embedder, gate):
    first = in_thread(embedder.embed_queries, ["first"])
    gate.wait_for_pack()
    rest = [in_thread(embedder.embed_queries, [f"query {i}"]) for i in range(5)]
    wait_until(lambda: queued(embedder) == 6)
    gate.open()
    for future in (first, *rest):
        assert future.result(PATIENCE).shape == (1, 256)
    assert gate.packs == [1, 5]


def test_a_query_overtakes_documents_and_waits_for_one_pack(embedder, gate):
    bulk = in_thread(embedder.embed_documents, DOCUMENTS)
    gate.wait_for_pack()
    query = in_thread(embedder.embed_queries, ["urgent"])
    wait_until(lambda: queued(embedder) == 2)
    gate.open(2)
    assert query.result(PATIENCE).shape == (1, 256)
    assert not bulk.done()
    assert gate.packs[1] == 1
    gate.open()
    assert len(bulk.result(PATIENCE)) == len(DOCUMENTS)


def test_documents_get_their_turn_however_many_queries_come(embedder, gate):
    bulk = in_thread(embedder.embed_documents, DOCUMENTS)
    gate.wait_for_pack()
    stop = threading.Event()
    asked = 0

    def ask():
        nonlocal asked
        while not stop.is_set():
            embedder.embed_queries(["again and again"])
            asked += 1

    askers = [in_thread(ask) for _ in range(3)]
    wait_until(lambda: queued(embedder) == 4)
    gate.open()
    try:
        assert len(bulk.result(PATIENCE)) == len(DOCUMENTS)
    finally:
        stop.set()
    for asker in askers:
        asker.result(PATIENCE)
    # Packs with some of the documents come at least every `BULK_TURN`th time.
    assert asked > 0
    assert len(gate.packs) <= worker.BULK_TURN * len(DOCUMENTS)


def test_results_do_not_depend_on_the_company(embedder):
    alone = [embedder.embed_documents([text])[0] for text in DOCUMENTS]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            mixed = list(pool.map(lambda text: embedder.embed_documents([text])[0], DOCUMENTS))
            np.testing.assert_allclose(mixed, alone, atol=1e-5)
    np.testing.assert_allclose(embedder.embed_documents(DOCUMENTS), alone, atol=1e-5)


def test_bad_text_fails_only_its_caller(embedder, gate):
    good = in_thread(embedder.embed_documents, ["fine"])
    gate.wait_for_pack()
    with pytest.raises(ValueError, match="lone surrogate"):
        embedder.embed_documents(["\ud800"])
    gate.open()
    assert good.result(PATIENCE).shape == (1, 256)


def test_a_failing_forward_pass_fails_its_callers_and_no_other(embedder, monkeypatch):
    run = embedder.engine.encoder.run

    def broken(pack):
        monkeypatch.setattr(embedder.engine.encoder, "run", run)
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(embedder.engine.encoder, "run", broken)
    with pytest.raises(RuntimeError, match="the device is gone"):
        embedder.embed_queries(["unlucky"])
    assert embedder.embed_queries(["lucky"]).shape == (1, 256)


def test_a_call_that_runs_out_of_time_leaves_the_queue(embedder, gate):
    impatient = Embedder(**embedder_settings(embedder), timeout=0.2)
    holder = in_thread(embedder.embed_queries, ["holds the worker"])
    gate.wait_for_pack()
    with pytest.raises(TimeoutError, match=r"gave no result within timeout=0\.2 seconds"):
        impatient.embed_queries(["too late"])
    gate.open()
    holder.result(PATIENCE)
    embedder.embed_queries(["after"])
    assert gate.packs == [1, 1]
    assert queued(embedder) == 0


async def test_a_coroutine_that_runs_out_of_time(embedder, gate):
    impatient = Embedder(**embedder_settings(embedder), timeout=0.2)
    holder = asyncio.ensure_future(embedder.aembed_queries(["holds the worker"]))
    await asyncio.to_thread(gate.wait_for_pack)
    with pytest.raises(TimeoutError, match=r"timeout=0\.2 seconds"):
        await impatient.aembed_queries(["too late"])
    gate.open()
    await holder


@pytest.fixture
def slow_load(embedder, monkeypatch):
    """Makes a component of the embedder's settings for which loading takes 1000 seconds of clocks.

    It gets the loaded engine in the end, as one does for which another thread has loaded it.
    """
    real = time.monotonic
    late = 0

    def open_late(**source):
        nonlocal late
        late += 1000
        return embedder.engine

    def make() -> Embedder:
        component = Embedder(**embedder_settings(embedder), timeout=900)
        component.close()  # as if it was made before the model was loaded
        return component

    monkeypatch.setattr("qwen3_core.engine.local.open_engine", open_late)
    # What times a call in a thread, and every event loop.
    monkeypatch.setattr(time, "monotonic", lambda: real() + late)
    return make


def test_the_load_is_not_counted_in_a_timeout(slow_load):
    begin = time.monotonic()
    assert slow_load().embed_queries(["first"]).shape == (1, 256)
    assert time.monotonic() - begin > 1000


async def test_the_load_is_not_counted_in_a_coroutines_timeout(slow_load):
    begin = time.monotonic()
    assert (await slow_load().aembed_queries(["first"])).shape == (1, 256)
    assert time.monotonic() - begin > 1000


async def test_a_load_that_runs_out_of_its_own_time_says_so(slow_load, monkeypatch):
    def hang(**source):
        raise TimeoutError("the hub does not answer")

    component = slow_load()
    monkeypatch.setattr("qwen3_core.engine.local.open_engine", hang)
    with pytest.raises(TimeoutError, match="the hub does not answer"):
        component.embed_queries(["first"])
    with pytest.raises(TimeoutError, match="the hub does not answer"):
        await component.aembed_queries(["first"])


@pytest.mark.parametrize("text", ["short", "long " * 5000], ids=["short", "long"])
@pytest.mark.filterwarnings("ignore::qwen3_core.tokenizer.TruncationWarning")
async def test_a_cancelled_coroutine_leaves_the_queue(embedder, gate, text):
    holder = asyncio.ensure_future(embedder.aembed_queries(["holds the worker"]))
    await asyncio.to_thread(gate.wait_for_pack)
    cancelled = asyncio.ensure_future(embedder.aembed_queries([text]))
    await asyncio.to_thread(wait_until, lambda: queued(embedder) == 2)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    gate.open()
    await holder
    await embedder.aembed_queries(["after"])
    assert gate.packs == [1, 1]


async def test_a_coroutine_cancelled_while_it_tokenises(embedder, monkeypatch, caplog):
    started, go_on = threading.Event(), threading.Event()
    tokenizer = embedder.engine.tokenizer
    encode = tokenizer.embedding_documents

    def slow(*args):
        started.set()
        go_on.wait(30)
        return encode(*args)

    monkeypatch.setattr(tokenizer, "embedding_documents", slow)
    call = asyncio.ensure_future(embedder.aembed_documents(["text " * 1000]))
    await asyncio.to_thread(started.wait, PATIENCE)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()
    admission = embedder.engine.worker.admission(bulk=True)
    await asyncio.to_thread(wait_until, lambda: admission.admitted == 0)
    assert queued(embedder) == 0
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def leave_and_close(call, ready, *, patience: float | None) -> None:
    """Start a coroutine in a loop of its own, give up, and close the loop at once.

    `asyncio.run` would wait for the threads that the loop has started.
    """

    async def leave() -> None:
        task = asyncio.ensure_future(call)
        if patience is None:
            await asyncio.to_thread(ready)
            task.cancel()
        with pytest.raises(TimeoutError if patience else asyncio.CancelledError):
            await task

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()


@pytest.mark.parametrize("patience", [None, 0.2], ids=["cancelled", "timeout"])
def test_queued_work_of_a_caller_that_left_with_its_loop_is_dropped(
    embedder, gate, patience, caplog
):
    settings = embedder_settings(embedder)
    holder = in_thread(embedder.embed_queries, ["holds the worker"])
    gate.wait_for_pack()
    caller = Embedder(**settings, timeout=patience)
    call = caller.aembed_documents(["text " * 500])
    leave_and_close(call, lambda: wait_until(lambda: queued(embedder) == 2), patience=patience)
    gate.open()
    holder.result(PATIENCE)
    embedder.embed_queries(["after"])
    assert gate.packs == [1, 1]
    assert embedder.engine.worker.admission(bulk=True).admitted == 0
    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize("patience", [None, 0.2], ids=["cancelled", "timeout"])
def test_nothing_is_queued_for_a_caller_that_left_while_its_text_was_tokenised(
    embedder, gate, patience, monkeypatch, caplog
):
    started, go_on, done = threading.Event(), threading.Event(), threading.Event()
    tokenizer = embedder.engine.tokenizer
    encode = tokenizer.embedding_documents

    def slow(*args):
        started.set()
        assert go_on.wait(30)
        try:
            return encode(*args)
        finally:
            done.set()

    monkeypatch.setattr(tokenizer, "embedding_documents", slow)
    caller = Embedder(**embedder_settings(embedder), timeout=patience)
    call = caller.aembed_documents(["text " * 500])
    leave_and_close(call, lambda: started.wait(30), patience=patience)
    go_on.set()
    if started.is_set():  # else its time was up before a thread took it
        assert done.wait(30)
    gate.open()
    embedder.embed_queries(["after"])
    assert gate.packs == [1]
    assert embedder.engine.worker.admission(bulk=True).admitted == 0
    gc.collect()
    assert caplog.records == []


def test_a_loop_that_closes_over_a_call_in_progress_is_no_error(embedder, gate, caplog):
    loop = asyncio.new_event_loop()
    task = loop.create_task(embedder.aembed_queries(["never awaited to its end"]))
    loop.run_until_complete(asyncio.sleep(0))
    gate.wait_for_pack()
    loop.close()
    gate.open()
    assert embedder.embed_queries(["after"]).shape == (1, 256)
    assert caplog.records == []
    # asyncio's complaint of a loop closed too early is right.
    task._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_the_event_loop_neither_tokenises_nor_computes(embedder, monkeypatch):
    where: dict[str, set[int]] = {}

    def watch(owner, name):
        function = getattr(owner, name)

        def watched(*args, **kwargs):
            where.setdefault(name, set()).add(threading.get_ident())
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(embedder.engine.tokenizer, "embedding_documents")
    watch(embedder.engine.encoder, "run")
    watch(qwen3_core.embedder, "normalised")
    await embedder.aembed_documents(DOCUMENTS)
    assert set(where) == {"embedding_documents", "run", "normalised"}
    assert threading.get_ident() not in set.union(*where.values())


def test_two_event_loops_one_after_the_other(embedder):
    first = asyncio.run(embedder.aembed_queries(["What is Milvus?"]))
    second = asyncio.run(embedder.aembed_queries(["What is Milvus?"]))
    np.testing.assert_array_equal(first, second)


async def test_async_twins_give_the_same_answers(embedder):
    queries, documents = ["What is stored?", "Why?"], DOCUMENTS[:5]
    np.testing.assert_allclose(
        await embedder.aembed_queries(queries), embedder.embed_queries(queries), atol=1e-5
    )
    np.testing.assert_allclose(
        await embedder.aembed_documents(documents), embedder.embed_documents(documents), atol=1e-5
    )
    reranker = Reranker("tiny", dtype="float32")
    sync, twin = reranker.rerank(documents, "Why?"), await reranker.arerank(documents, "Why?")
    assert [r.index for r in sync] == [r.index for r in twin]
    np.testing.assert_allclose([r.score for r in sync], [r.score for r in twin], atol=1e-5)


def test_documents_stream_through_in_windows(embedder, monkeypatch):
    expected = embedder.embed_documents(DOCUMENTS)
    monkeypatch.setattr("qwen3_core.inputs.WINDOW_CHARACTERS", 400)
    most = 0
    submit = embedder.engine.worker.submit

    def watched(sequences, **kwargs):
        nonlocal most
        future = submit(sequences, **kwargs)
        most = max(most, embedder.stats().queued_requests)
        return future

    monkeypatch.setattr(embedder.engine.worker, "submit", watched)
    np.testing.assert_allclose(embedder.embed_documents(DOCUMENTS), expected, atol=1e-5)
    assert most <= 2


def test_callers_wait_before_they_tokenise_when_the_queue_is_full(embedder, gate):
    admission = embedder.engine.worker.admission(bulk=True)
    admission.capacity = 3 * len(DOCUMENTS[0])
    calls = [in_thread(embedder.embed_documents, [text]) for text in DOCUMENTS[:9]]
    gate.wait_for_pack()
    wait_until(lambda: len(admission._waiting) == 6)
    assert queued(embedder) == 3
    # Interactive work does not stand in that line.
    query = in_thread(embedder.embed_queries, ["urgent"])
    wait_until(lambda: queued(embedder) == 4)
    gate.open()
    assert query.result(PATIENCE).shape == (1, 256)
    assert all(call.result(PATIENCE).shape == (1, 256) for call in calls)
    assert admission.admitted == 0


async def test_whoever_gives_up_in_line_leaves_no_trace(embedder, gate):
    admission = embedder.engine.worker.admission(bulk=True)
    admission.capacity = 1
    holder = asyncio.ensure_future(embedder.aembed_documents(["holds the gate"]))
    await asyncio.to_thread(gate.wait_for_pack)
    cancelled = asyncio.ensure_future(embedder.aembed_documents(["in line"]))
    last = asyncio.ensure_future(embedder.aembed_documents(["behind it"]))
    await asyncio.to_thread(wait_until, lambda: len(admission._waiting) == 2)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    gate.open()
    await asyncio.wait_for(asyncio.gather(holder, last), PATIENCE)
    assert admission.admitted == 0


def test_a_failure_while_tokenising_leaves_the_gate(embedder, monkeypatch):
    def broken(*args):
        raise RuntimeError("no ids")

    monkeypatch.setattr(embedder.engine.tokenizer, "embedding_documents", broken)
    with pytest.raises(RuntimeError, match="no ids"):
        embedder.embed_documents(["text"])
    assert embedder.engine.worker.admission(bulk=True).admitted == 0


def test_closing_the_worker_fails_what_waits(embedder, gate):
    running = in_thread(embedder.embed_queries, ["running"])
    gate.wait_for_pack()
    waiting = in_thread(embedder.embed_queries, ["waiting"])
    wait_until(lambda: queued(embedder) == 2)
    worker = embedder.engine.worker
    worker.admission(bulk=True).capacity = 0
    in_line = [in_thread(embedder.embed_documents, ["in line"]) for _ in range(2)]
    wait_until(lambda: len(worker.admission(bulk=True)._waiting) == 1)
    closing = in_thread(worker.close)
    for future in in_line:
        with pytest.raises(EngineClosedError):
            future.result(PATIENCE)
    with pytest.raises(EngineClosedError, match="was closed; create a new component"):
        waiting.result(PATIENCE)
    gate.open()
    closing.result(PATIENCE)
    with pytest.raises((EngineClosedError, CancelledError)):
        running.result(PATIENCE)
    with pytest.raises(EngineClosedError):
        embedder.embed_queries(["too late"])


def test_a_closed_component_opens_again(embedder):
    expected = embedder.embed_queries(["What is Milvus?"])
    embedder.close()
    np.testing.assert_allclose(embedder.embed_queries(["What is Milvus?"]), expected, atol=1e-6)


def test_the_thread_ends_with_the_last_user(tmp_path):
    folder = tmp_path / "short_lived"
    folder.symlink_to(TINY / "embedding")
    embedder = Embedder(folder)
    embedder.embed_queries(["hello"])
    (worker,) = (t for t in threading.enumerate() if "short_lived" in t.name)
    del embedder
    wait_until(lambda: not worker.is_alive())


def test_stats_add_up(embedder):
    before = embedder.stats()
    embedder.embed_documents(DOCUMENTS[:7])
    after = embedder.stats()
    assert after.requests - before.requests == 1
    assert after.sequences - before.sequences == 7
    rows, _ = embedder.engine.tokenizer.embedding_documents(DOCUMENTS[:7], 1000)
    assert after.tokens - before.tokens == sum(map(len, rows))
    assert after.packs > before.packs
    assert after.compute_time > before.compute_time
    assert after.wait_time >= before.wait_time
    assert after.tokens_per_second > 0
    assert after.pack_fill > 0
    assert (after.queued_requests, after.queued_tokens) == (0, 0)


def test_freed_memory_is_given_back_after_a_while_of_service(embedder, monkeypatch):
    calls = []
    monkeypatch.setattr(buffers, "give_back_freed", lambda: calls.append("given back"))
    for _ in range(3):
        embedder.embed_queries(["warm"])
    assert not calls
    monkeypatch.setattr(worker, "GIVE_BACK_EVERY", 0.0)
    embedder.embed_queries(["later"])
    wait_until(lambda: len(calls) == 1)
    monkeypatch.setattr(worker, "GIVE_BACK_EVERY", 60.0)
    embedder.embed_queries(["within the next minute"])
    assert len(calls) == 1


def test_the_log_tells_of_packs_and_requests(embedder, caplog):
    with caplog.at_level("DEBUG", logger="qwen3_core.engine.worker"):
        embedder.embed_documents(["a secret document"])
    assert "pack of 4 tokens, 1 sequences, 1 requests" in caplog.text
    assert "request of 1 sequences waited" in caplog.text
    assert "secret" not in caplog.text


def test_opentelemetry_gets_a_span_below_the_callers(embedder, monkeypatch):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("qwen3_core.engine.telemetry.trace.get_tracer", provider.get_tracer)
    with provider.get_tracer("caller").start_as_current_span("call") as caller:
        embedder.embed_documents(["a secret document", "another"])
    (span,) = [s for s in exporter.get_finished_spans() if s.name == "qwen3.encode"]
    assert span.parent is not None
    assert span.parent.span_id == caller.get_span_context().span_id
    attributes: dict[str, Any] = dict(span.attributes or {})
    assert attributes["qwen3.sequences"] == 2
    assert attributes["qwen3.compute_seconds"] > 0
    assert "secret" not in str(span.to_json())


def test_without_opentelemetry_there_is_no_span(embedder, monkeypatch):
    monkeypatch.setattr("qwen3_core.engine.telemetry.trace", None)
    assert embedder.embed_queries(["hello"]).shape == (1, 256)


def embed_in_child(embedder: Embedder) -> list[float]:
    vector: list[float] = embedder.embed_queries(["What is Milvus?"])[0].tolist()
    return vector


@pytest.mark.integration
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_processes_compute_the_same(embedder, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    expected = embed_in_child(embedder)
    with multiprocessing.get_context(method).Pool(1) as pool:
        found = pool.apply_async(embed_in_child, (embedder,)).get(120)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_amid_work_does_not_hang(embedder, gate):
    busy = in_thread(embedder.embed_documents, DOCUMENTS)
    gate.wait_for_pack()
    child = os.fork()
    if child == 0:
        gate.open()
        ok = embedder.embed_queries(["hello"]).shape == (1, 256)
        os._exit(0 if ok else 1)
    # A child that hangs is ended, and waited for all the same.
    alarm = threading.Timer(60, os.kill, (child, signal.SIGKILL))
    alarm.start()
    _, status = os.waitpid(child, 0)
    alarm.cancel()
    gate.open()
    busy.result(PATIENCE)
    assert status == 0, "the child hung or failed"


def run_script(code: str, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_openmp_threads_it_has_not():
    done = run_script(
        """
        import os, signal, threading
        import torch
        from qwen3_core import Embedder

        torch.rand(1_000_000).exp()  # the calling thread has OpenMP threads of its own
        texts = ["Milvus writes what is inserted to its log first. " * 20] * 30
        embedder = Embedder("tiny", dtype="float32")
        expected = embedder.embed_documents(texts)
        child = os.fork()
        if child == 0:
            found = embedder.embed_documents(texts)
            Embedder("tiny", dtype="bfloat16").embed_documents(texts[:2])
            os._exit(0 if abs(found - expected).max() < 1e-4 else 1)
        alarm = threading.Timer(60, os.kill, (child, signal.SIGKILL))
        alarm.start()
        print("ended", os.waitpid(child, 0)[1])
        alarm.cancel()
        """,
        OMP_NUM_THREADS="2",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ended 0\n"


@pytest.mark.integration
@pytest.mark.parametrize("first", ["concurrent.futures.thread", "qwen3_core.engine.engine"])
def test_exit_with_queued_work_does_not_wait_for_it(first):
    done = run_script(
        f"""
        import {first}
        import time
        from concurrent.futures import ThreadPoolExecutor
        from qwen3_core import Embedder

        embedder = Embedder("tiny", pack_tokens=64)
        embedder.embed_queries(["warm up"])
        texts = ["some text to embed " * 20] * 20_000
        pool = ThreadPoolExecutor(4)
        futures = [pool.submit(embedder.embed_documents, texts) for _ in range(8)]
        while embedder.stats().queued_requests < 4:  # of each thread one
            time.sleep(0.001)
        print("leaving", not any(f.done() for f in futures))
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "leaving True\n"


@pytest.mark.integration
def test_keyboard_interrupt_leaves_a_usable_engine():
    done = run_script(
        """
        import _thread, signal, threading, time
        from qwen3_core import Embedder

        # A shell that runs this in the background has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        embedder = Embedder("tiny", pack_tokens=64)
        expected = embedder.embed_queries(["hello"])
        caught = threading.Event()
        def interrupt():
            while not embedder.stats().queued_requests:
                time.sleep(0.001)
            _thread.interrupt_main()
            while not caught.wait(2):  # Python ignores one that falls into a __del__
                _thread.interrupt_main()

        threading.Thread(target=interrupt).start()
        try:
            embedder.embed_documents(["some text to embed " * 20] * 50_000)
        except KeyboardInterrupt:
            caught.set()
            print("interrupted")
        print(abs(embedder.embed_queries(["hello"]) - expected).max() < 1e-3)
        print(embedder.stats().queued_requests)
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["interrupted", "True", "0"]


@pytest.mark.integration
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_sigterm_under_load_ends_the_process_at_once():
    code = """
    import threading, time
    from qwen3_core import Embedder

    embedder = Embedder("tiny", pack_tokens=64)
    embedder.embed_queries(["warm up"])
    def tell():
        while not embedder.stats().queued_requests:
            time.sleep(0.001)
        print("ready", flush=True)

    threading.Thread(target=tell).start()
    embedder.embed_documents(["some text to embed " * 20] * 50_000)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(timeout=20) == -signal.SIGTERM


def embedder_settings(embedder: Embedder) -> dict:
    source = embedder._source
    return {"model": source["model"], "dtype": source["dtype"]}
