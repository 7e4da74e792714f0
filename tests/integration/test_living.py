"""b28 to b30: starting, stopping, and being light."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.daemon_process import DaemonProcess, eventually

Drop = Callable[..., Path]


def test_b28_one_instance(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """A second daemon on the same models folder, or the same state folder, says so and exits with its own code."""
    daemon.start()
    second = daemon.cli("run")
    assert second.returncode == 69
    assert "another daemon is at work on" in second.stderr
    assert "Traceback" not in second.stderr
    (tmp_path / "other").mkdir()
    other = DaemonProcess(tmp_path / "other")
    other.write_config(state_dir=str(daemon.state_dir))
    third = other.cli("run")
    assert third.returncode == 69
    assert str(daemon.state_dir) in third.stderr
    drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for_models(1)
    assert daemon.stop() == 0
    daemon.start()


def test_b29_stopping_lets_conversions_finish(daemon: DaemonProcess, drop: Drop) -> None:
    """What is under way becomes a model before the exit; what waits is done at the next start."""
    daemon.write_config(workers=1)
    for seed in range(4):
        drop(daemon.drop / f"run{seed}" / "x.pt", seed)
    daemon.start()
    daemon.wait_for("conversion.started")
    assert daemon.stop() == 0
    finished = len(daemon.models())
    assert finished >= 1
    assert daemon.events("conversion.started").__len__() == finished
    (stopping,) = daemon.events("daemon.stopping")
    assert stopping["reason"] == "SIGTERM"
    daemon.start()
    daemon.wait_for_models(4)
    assert not daemon.events("conversion.failed")


@pytest.mark.slow
def test_b29_stopping_cuts_what_does_not_finish(daemon: DaemonProcess, drop: Drop) -> None:
    """After the grace time a conversion is cut off, costs no attempt, and is done at the next start."""
    daemon.write_config(stop_grace_s=0.5, workers=2)
    daemon.start()
    drop(daemon.drop / "warm-up" / "x.pt", 9)
    daemon.wait_for_models(1)
    workers = [child for child in psutil.Process(daemon.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert workers
    for worker in workers:
        worker.suspend()
    drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for("conversion.started", count=2)
    assert daemon.stop() == 0
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    daemon.start()
    daemon.wait_for_models(2)
    assert [event["attempt"] for event in daemon.events("conversion.started")] == [1, 1, 1]


@pytest.mark.slow
def test_b30_light(daemon: DaemonProcess, drop: Drop) -> None:
    """After its work the daemon ends its workers; alone, it is small, has no torch, and hardly uses the CPU."""
    daemon.write_config(conversion={"idle_close_s": 0.5}, workers=2)
    daemon.start()
    drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for_models(1)
    process = psutil.Process(daemon.pid)
    eventually(lambda: not [c for c in process.children() if "spawn_main" in " ".join(c.cmdline())], "workers end")
    mapped = {Path(item.path).name for item in process.memory_maps()}
    assert not [name for name in mapped if "torch" in name or "numpy" in name]
    assert process.memory_info().rss < 60 * 2**20
    before = process.cpu_times()
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 5, "five seconds of idleness")
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    assert used < 0.05 * (time.monotonic() - began)  # of the CPU's own time: other load does not count
    drop(daemon.drop / "b" / "x.pt", 2)
    daemon.wait_for_models(2)
    assert daemon.stop(signal.SIGTERM) == 0
