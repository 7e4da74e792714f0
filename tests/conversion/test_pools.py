"""One suite over every pool: what the daemon relies on, whichever engine runs the conversions."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from sda_daemon.conversion import worker
from sda_daemon.conversion.job import ConversionJob, Converted, Failed, Outcome
from sda_daemon.conversion.pool import ConversionPool, WorkerPool, describe_exit
from sda_daemon.intake.probe import look
from sda_daemon.settings.schema import MetadataSettings
from tests.daemon_process import eventually


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

    def rest(self) -> None:
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self.rest()


@pytest.fixture(params=["processes", "threads"])
def pool(request: pytest.FixtureRequest) -> Iterator[ConversionPool]:
    """Each engine in turn."""
    made: ConversionPool = WorkerPool(2, 60.0, 16 * 2**30) if request.param == "processes" else ThreadPool()
    yield made
    made.close()


def job(path: Path, tmp_path: Path, name: str = "1.tmp") -> ConversionJob:
    signature = look(str(path))
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
    pool.rest()
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


def test_a_dying_worker_fails_alone(tmp_path: Path, small_checkpoints: Callable[..., Path]) -> None:
    """A process that is killed in the middle of a job is one failed job that says so; the next one succeeds."""
    import psutil

    held = tmp_path / "held"
    held.mkdir()
    index = held / "model_library.json"
    os.mkfifo(index)  # the worker that reads it is at its job, and stays there until someone writes
    pool = WorkerPool(1, 60.0, None)
    try:
        assert isinstance(pool.submit(job(small_checkpoints(1), tmp_path)).result(60), Converted)
        (child,) = [c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]
        future = pool.submit(replace(job(small_checkpoints(2), tmp_path, "2.tmp"), models_dir=str(held)))
        writer = eventually(lambda: writing_end(index), "the worker reads the index")
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
