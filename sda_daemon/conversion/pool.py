"""Worker processes that may crash, hang or run out of memory without harm to the daemon.

The pool sits behind a small protocol, so that another engine can take its place. Processes are started
when there is work and ended when there has been none for a while: an idle daemon holds no torch.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar, runtime_checkable

from pebble import ProcessExpired, ProcessPool

from sda_daemon.conversion import worker
from sda_daemon.conversion.interrupts import held_back
from sda_daemon.conversion.job import ConversionJob, Converted, Failed, Outcome, Preview

T = TypeVar("T")
_LONGEST_LINE = 2000
NO_WORKER = (OSError, RuntimeError, MemoryError)
"""What is raised where processes, descriptors, threads or memory have run out."""
END_S = 15.0
"""How long the end of a pool may take, in seconds."""


class ConversionPool(Protocol):
    """What the daemon needs of an engine that runs conversions."""

    def submit(self, job: ConversionJob, on_free: Callable[[], None] | None = None) -> Future[Outcome]:
        """Run a conversion; the future's result is Converted, with a file that is on the disk, or Failed.

        It is never an exception. `on_free` is called (from another thread) as soon as the worker could take another
        job: it need not wait for the disk.
        """

    def warm(self) -> None:
        """Get ready, because a job is to be expected. Where that is not possible now, nothing happens."""

    def release(self) -> None:
        """Let go of all resources; only called while no job is running. The pool stays usable."""

    def close(self) -> None:
        """Stop at once; jobs that are running are cut off and their futures fail."""


@runtime_checkable
class TaskPool(Protocol):
    """An engine that can run other things than conversions, too. What must not be done without one is not done."""

    def call(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in a worker; the future's result may be any exception, also that the worker died."""


class WorkerPool:
    """Spawned processes of this machine.

    Args:
        workers: how many conversions may run at the same time.
        time_limit_s: longest a conversion may take, in seconds.
        memory_limit: address space of one worker in bytes, None for no limit.
        on_output: called (from another thread) with each line that workers or their libraries print;
            without it, they print where this process does.
    """

    def __init__(
        self,
        workers: int,
        time_limit_s: float,
        memory_limit: int | None,
        on_output: Callable[[str], None] | None = None,
    ) -> None:
        leave_closed_folder()
        self._workers = workers
        self._time_limit_s = time_limit_s
        self._memory_limit = memory_limit
        self._on_output = on_output
        self._pool: ProcessPool | None = None
        self._output: Connection | None = None
        self._disk = _Disk()
        self._has_begun = False

    def _schedule(self, function: Callable[..., T], arguments: Sequence[Any]) -> Future[T]:
        """Hand a call to a worker.

        Raises:
            OSError, RuntimeError, MemoryError: there are no more processes, descriptors, threads or bytes.
        """
        with held_back():
            try:
                future: Future[T] = self._running().schedule(function, args=list(arguments), timeout=self._time_limit_s)
            except NO_WORKER:
                if not self._has_begun:  # one that has only half begun would never do anything
                    self._drop()
                raise
            self._has_begun = True
            return future

    def _running(self) -> ProcessPool:
        if self._pool is not None and not self._pool.active:
            self.release()
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self._workers,
                context=multiprocessing.get_context("spawn"),
                initializer=worker.initialize,
                initargs=(self._memory_limit, os.getpid(), self._capture()),
            )
        return self._pool

    def _capture(self) -> Connection | None:
        """Make the pipe that workers print into, and a thread that reads it to its end."""
        if self._on_output is None:
            return None
        if self._output is None:
            reader, self._output = multiprocessing.Pipe(duplex=False)
            arguments = (reader, self._on_output)
            try:
                threading.Thread(target=_listen, args=arguments, daemon=True, name="worker-output").start()
            except BaseException:
                output, self._output = self._output, None  # no one would read it
                output.close()
                reader.close()
                raise
        return self._output

    def submit(self, job: ConversionJob, on_free: Callable[[], None] | None = None) -> Future[Outcome]:
        """Run a conversion; see the protocol."""
        outer: Future[Outcome] = Future()

        def finish(inner: Future[Outcome]) -> None:
            if on_free is not None:
                on_free()
            self._disk.wait_for(_outcome(inner, job, self._time_limit_s), outer)

        try:
            inner = self._schedule(worker.convert, [job])
        except NO_WORKER as error:
            outer.set_result(_no_worker(job, error))
        else:
            inner.add_done_callback(finish)
        return outer

    def preview(self, job: ConversionJob) -> Future[Preview | Failed]:
        """Tell what a conversion would give; the future's result is never an exception."""
        outer: Future[Preview | Failed] = Future()

        def finish(inner: Future[Preview | Failed]) -> None:
            outer.set_result(_outcome(inner, job, self._time_limit_s))

        try:
            inner = self._schedule(worker.preview, [job])
        except NO_WORKER as error:
            outer.set_result(_no_worker(job, error))
        else:
            inner.add_done_callback(finish)
        return outer

    def call(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in a worker; see the protocol."""
        try:
            return self._schedule(function, arguments)
        except NO_WORKER as error:
            inner: Future[T] = Future()
            inner.set_exception(CancelledError(_why_no_worker(error)))
            return inner

    def warm(self) -> None:
        """Start the processes and let them import torch. It only saves time: whoever has work finds what is wrong."""
        if self._pool is None:
            with contextlib.suppress(*NO_WORKER):
                for _ in range(self._workers):
                    self._schedule(worker.warm_up, [])

    def release(self) -> None:
        """End the processes."""
        output, self._output = self._output, None
        if output is not None:
            output.close()
        self._drop()
        self._disk.release()

    def _drop(self) -> None:
        pool, self._pool = self._pool, None
        self._has_begun = False
        if pool is not None:
            _end(pool)

    def close(self) -> None:
        """Stop at once."""
        self.release()
        self._disk.release(for_good=True)


def leave_closed_folder() -> None:
    """Go somewhere else if the working folder may not be entered: workers begin where their parent is.

    One is in such a folder after becoming another user in somebody's home. Relative paths lead nowhere there.
    """
    if not os.access(os.curdir, os.X_OK):
        os.chdir("/")


class _Disk:
    """A thread that waits for the disk: a slow one must hold up neither workers nor the daemon's loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[tuple[Outcome, Future[Outcome]] | None] | None = None
        self._is_closed = False

    def wait_for(self, outcome: Outcome, done: Future[Outcome]) -> None:
        """Give the future its result once the outcome's file is on the disk; at once where there is no file."""
        is_waiting = isinstance(outcome, Converted) and outcome.was_written and self._take(outcome, done)
        if not is_waiting:
            done.set_result(worker.make_durable(outcome))

    def _take(self, outcome: Outcome, done: Future[Outcome]) -> bool:
        """Leave it to the thread; False where there can be none: then the caller waits himself."""
        with self._lock:
            if self._waiting is None:
                if self._is_closed:
                    return False
                waiting: queue.SimpleQueue[tuple[Outcome, Future[Outcome]] | None] = queue.SimpleQueue()
                try:
                    threading.Thread(target=_wait_for_disk, args=(waiting,), daemon=True, name="disk").start()
                except (RuntimeError, MemoryError):  # no more threads
                    return False
                self._waiting = waiting
            self._waiting.put((outcome, done))
            return True

    def release(self, *, for_good: bool = False) -> None:
        """Let the thread end after what it has to do."""
        with self._lock:
            self._is_closed = for_good
            if self._waiting is not None:
                self._waiting.put(None)
                self._waiting = None


def _wait_for_disk(waiting: queue.SimpleQueue[tuple[Outcome, Future[Outcome]] | None]) -> None:
    while (item := waiting.get()) is not None:
        outcome, done = item
        done.set_result(worker.make_durable(outcome))


def _end(pool: ProcessPool) -> None:
    """End a pool's processes; one that does not let go in time (a worker in a dead mount, say) is left behind."""
    ended: list[bool] = []

    def end() -> None:
        with contextlib.suppress(Exception):  # of one that has only half begun
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()
            ended.append(True)

    thread = threading.Thread(target=end, daemon=True, name="pool-end")
    with contextlib.suppress(RuntimeError, MemoryError):  # no more threads
        thread.start()
        thread.join(END_S)
    if not ended:
        for child in multiprocessing.active_children():
            child.kill()


def _listen(reader: Connection, on_output: Callable[[str], None]) -> None:
    """Pass on what workers print, line by line, until the last of them is gone."""
    with reader, open(reader.fileno(), "rb", closefd=False) as stream:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            if text:
                on_output(text[:_LONGEST_LINE])


def _why_no_worker(error: BaseException) -> str:
    return f"no worker process could be started: {str(error) or type(error).__name__}"


def _no_worker(job: ConversionJob, error: BaseException) -> Failed:
    return Failed(job, "no_worker", False, _why_no_worker(error))


def _outcome(future: Future[T], job: ConversionJob, time_limit_s: float) -> T | Failed:
    try:
        return future.result()
    except (FutureTimeoutError, TimeoutError):
        return Failed(job, "timeout", False, f"it took longer than {time_limit_s:g} s and was cut off", is_crash=True)
    except ProcessExpired as error:
        return Failed(job, "crashed", False, describe_exit(error.exitcode), is_crash=True)
    except BrokenProcessPool:
        return Failed(job, "crashed", False, "all workers died at once: perhaps out of memory", is_crash=True)
    except CancelledError:
        return Failed(job, "stopped", False, "the daemon was stopped")
    except Exception as error:  # noqa: BLE001 - whatever the engine raises is a failed attempt
        return Failed(job, "crashed", False, f"{type(error).__name__}: {error}", is_crash=True)


def describe_exit(code: int) -> str:
    """Say in words how a worker process ended."""
    if code >= 0:
        return f"its worker exited with code {code}"
    number = -code
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    guesses: dict[int, str] = {
        signal.SIGKILL: ": perhaps out of memory",
        signal.SIGBUS: ": the file was truncated while it was read",
        signal.SIGSEGV: ": a fault in native code",
    }
    return f"its worker was killed by signal {number} ({name}){guesses.get(number, '')}"
