"""One suite over every pool: what the daemon relies on, whichever engine runs the conversions."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from sda_daemon.conversion import worker
from sda_daemon.conversion.job import ConversionJob, Converted, Failed, Outcome
from sda_daemon.conversion.pool import ConversionPool, WorkerPool, describe_exit
from sda_daemon.files import fsync_large
from sda_daemon.models import checkpoint
from sda_daemon.settings.schema import MetadataSettings
from sda_daemon.signature import signature_at
from tests.daemon_process import eventually, patch_workers


class ThreadPool:
    """The smallest engine that fits the protocol: a thread per job, as an embedding program might use."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def submit(self, job: ConversionJob, on_free: Callable[[], None] | None = None) -> Future[Outcome]:
        future: Future[Outcome] = Future()

        def run() -> None:
            outcome = worker.convert(job)
            if on_free is not None:
                on_free()
            future.set_result(worker.make_durable(outcome))

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)
        return future

    def warm(self) -> None:
        worker.warm_up()

    def release(self) -> None:
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self.release()


@pytest.fixture(params=["processes", "threads"])
def pool(request: pytest.FixtureRequest) -> Iterator[ConversionPool]:
    """Each engine in turn."""
    made: ConversionPool = WorkerPool(2, 60.0, 16 * 2**30) if request.param == "processes" else ThreadPool()
    yield made
    made.close()


def job(path: Path, tmp_path: Path, name: str = "1.tmp") -> ConversionJob:
    signature = signature_at(str(path))
    assert signature is not None
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    models = str(tmp_path / "models")
    return ConversionJob(str(path), signature, str(path.parent), models, str(work), name, MetadataSettings())


def test_results_are_never_exceptions(
    pool: ConversionPool, small_checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    """Good, broken and missing files, several at once: each future has its own result; it works after a rest."""
    good, broken, gone = small_checkpoints(1), tmp_path / "broken.pt", tmp_path / "gone.pt"
    broken.write_bytes(b"nothing")
    gone.write_bytes(b"soon gone")
    jobs = [job(good, tmp_path), job(broken, tmp_path), job(gone, tmp_path)]
    gone.unlink()
    pool.warm()
    results = [future.result(60) for future in [pool.submit(item) for item in jobs]]
    assert isinstance(results[0], Converted)
    assert (tmp_path / "work" / "1.tmp").stat().st_size == results[0].size_bytes
    assert [result.kind for result in results[1:] if isinstance(result, Failed)] == ["broken", "vanished"]
    pool.release()
    again = pool.submit(job(small_checkpoints(2), tmp_path, "2.tmp")).result(60)
    assert isinstance(again, Converted)


def writing_end(pipe: Path) -> int | None:
    """Open a named pipe for writing; None while no one is reading it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def test_a_dying_worker_fails_alone(
    tmp_path: Path, drop: Callable[..., Path], small_checkpoints: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed in the middle of a job is one failed job that says so; the next one succeeds."""
    import psutil

    held, pipe = drop(tmp_path / "held.pt", 2), tmp_path / "pipe"
    os.mkfifo(pipe)  # the worker that reads it is at its job, and stays there until someone writes
    body = f"""
        if path.name == "held.pt":
            open({str(pipe)!r}).read()
        return read(path)
    """
    for name, value in patch_workers(tmp_path / "patch", body).items():
        monkeypatch.setenv(name, value)
    pool = WorkerPool(1, 60.0, None)
    try:
        assert isinstance(pool.submit(job(small_checkpoints(1), tmp_path)).result(60), Converted)
        alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
        (child,) = [child for child in alive if "spawn_main" in " ".join(child.cmdline())]
        future = pool.submit(job(held, tmp_path, "2.tmp"))
        writer = eventually(lambda: writing_end(pipe), "the worker reads the pipe")
        os.kill(child.pid, signal.SIGKILL)
        result = future.result(60)
        os.close(writer)
        assert isinstance(result, Failed)
        assert (result.kind, result.is_crash) == ("crashed", True)
        assert "signal 9" in result.message
        assert isinstance(pool.submit(job(small_checkpoints(2), tmp_path, "3.tmp")).result(60), Converted)
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "out of memory"), (-7, "truncated"), (-11, "native code"), (-64, "signal 64"), (3, "code 3")],
)
def test_exits_in_words(code: int, words: str) -> None:
    """What a person would want to know of an exit code."""
    assert words in describe_exit(code)


def test_models_reach_the_disk_without_a_thread_too(
    tmp_path: Path, drop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no more threads can be had, the one that has the news waits for the disk himself."""
    start = threading.Thread.start

    def starting(thread: threading.Thread) -> None:
        if thread.name == "disk":
            raise RuntimeError("can't start new thread")
        start(thread)

    pool = WorkerPool(1, 60.0, None)
    try:
        for turn in range(2):
            monkeypatch.setattr(threading.Thread, "start", starting if turn == 0 else start)
            outcome = pool.submit(job(drop(tmp_path / f"{turn}.pt", turn), tmp_path, f"{turn}.tmp")).result(60)
            assert isinstance(outcome, Converted)
    finally:
        pool.close()


def test_what_cannot_be_made_durable_is_a_failure_of_its_own(
    tmp_path: Path, drop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk may only be told when the file is synced; and nothing stops the next one."""
    errors: list[Exception | None] = [OSError(errno.ENOSPC, "No space left on device"), ValueError("a bug"), None]
    sync = fsync_large

    def syncing(path: Path) -> None:
        error = errors.pop(0)
        if error is not None:
            raise error
        sync(path)

    monkeypatch.setattr(worker, "fsync_large", syncing)
    pool = WorkerPool(1, 60.0, None)
    try:
        outcomes = [
            pool.submit(job(drop(tmp_path / f"{turn}.pt", turn), tmp_path, f"{turn}.tmp")).result(60)
            for turn in range(3)
        ]
    finally:
        pool.close()
    kinds = [(item.kind, item.permanent) if isinstance(item, Failed) else "converted" for item in outcomes]
    assert kinds == [("disk_full", False), ("bug", False), "converted"]


def test_the_worker_is_free_before_the_disk_is(
    tmp_path: Path, drop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next conversion runs while the first one's file is waited for; results come once it is on the disk."""
    may_sync, sync = threading.Event(), fsync_large

    def syncing(path: Path) -> None:
        assert may_sync.wait(60)
        sync(path)

    monkeypatch.setattr(worker, "fsync_large", syncing)
    pool, free = WorkerPool(1, 60.0, None), [threading.Event(), threading.Event()]
    try:
        futures = [
            pool.submit(job(drop(tmp_path / f"{turn}.pt", turn), tmp_path, f"{turn}.tmp"), free[turn].set)
            for turn in range(2)
        ]
        assert all(event.wait(60) for event in free)
        assert not any(future.done() for future in futures)
        may_sync.set()
        assert all(isinstance(future.result(60), Converted) for future in futures)
    finally:
        may_sync.set()
        pool.close()


def test_b12_rewritten_while_it_is_read(
    tmp_path: Path, drop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks damaged because someone is writing it anew is no damaged file."""
    path = drop(tmp_path / "x.pt", 1)
    wanted = job(path, tmp_path)
    worker.warm_up()  # what is loaded while the reader is a patched one would keep that
    read = checkpoint.read_checkpoint

    def reading(source: Path) -> checkpoint.Checkpoint:
        source.write_bytes(source.read_bytes()[:-1000])
        return read(source)

    monkeypatch.setattr(checkpoint, "read_checkpoint", reading)
    outcome = worker.convert(wanted)
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.permanent) == ("changed", False)
