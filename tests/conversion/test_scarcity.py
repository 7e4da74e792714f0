"""Where processes, descriptors, threads or memory run out, an attempt fails, and the next one may succeed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pebble import ProcessPool

from sda_daemon.conversion.job import Failed
from sda_daemon.conversion.pool import WorkerPool
from tests.conversion.test_pools import job

_FEW_DESCRIPTORS = """
import os, resource
from sda_daemon.conversion.pool import WorkerPool

def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    for more in range(0, 24, 4):
        pool = WorkerPool(2, 60.0, None, print)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, hard))
        pool.warm()
        future = pool.call(os.getpid)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        try:
            future.result(60)
        except BaseException as error:
            print(more, type(error).__name__, error, flush=True)
        for _ in range(2):
            try:
                assert pool.call(os.getpid).result(60) != os.getpid()
                break
            except Exception as error:
                print(more, "again", type(error).__name__, error, flush=True)
        else:
            raise SystemExit("it has not recovered")
        pool.close()
    print("recovered", flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    """One worker; what it prints is read by a thread."""
    made = WorkerPool(1, 60.0, None, print)
    yield made
    made.close()


def test_b46_a_pool_survives_that_descriptors_run_out(tmp_path: Path) -> None:
    """At whatever step of its beginning that is; once there are some again, it works."""
    script = tmp_path / "few.py"
    script.write_text(_FEW_DESCRIPTORS)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 CancelledError no worker process could be started: [Errno 24]" in done.stdout
    assert done.stdout.endswith("recovered\n")


@pytest.mark.parametrize("error", [OSError(11, "no more processes"), RuntimeError("no more threads"), MemoryError()])
def test_b46_whatever_runs_out_is_a_failed_attempt(
    pool: WorkerPool,
    small_checkpoints: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """Getting ready is never fatal; conversions, previews and calls fail, with the reason, and work afterwards."""

    def fail(*_arguments: object, **_more: object) -> None:
        raise error

    work = job(small_checkpoints(1), tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(ProcessPool, "schedule", fail)
        pool.warm()
        for failed in (pool.submit(work).result(0), pool.preview(work).result(0)):
            assert isinstance(failed, Failed)
            assert (failed.kind, failed.permanent, failed.is_crash) == ("no_worker", False, False)
            assert (str(error) or "MemoryError") in failed.message
        assert "no worker process could be started" in str(pool.call(os.getpid).exception(0))
    assert pool.call(os.getpid).result(60) != os.getpid()


def test_b46_a_pool_survives_that_threads_run_out(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whichever thread of its beginning that is: nothing of the half that has begun stays."""
    start = threading.Thread.start
    for allowed in range(5):
        left = allowed

        def limited(thread: threading.Thread) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", limited)
            pool.warm()
        assert pool.call(os.getpid).result(60) != os.getpid()
        pool.release()
