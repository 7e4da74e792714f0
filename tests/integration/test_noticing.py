"""b01 to b08: nothing that is dropped goes unnoticed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon_process import DaemonProcess, eventually

Drop = Callable[..., Path]


@pytest.mark.slow
def test_b01_overflow(daemon: DaemonProcess, drop: Drop) -> None:
    """Events lost to a full kernel queue are made up for by a rescan that says why."""
    daemon.write_config(workers=2)
    daemon.start()
    daemon.send(signal.SIGSTOP)
    clutter = daemon.drop / "clutter"
    clutter.mkdir()
    for number in range(20_000):
        (daemon.drop / f"{number}.txt").touch()
    for seed in range(3):
        drop(daemon.drop / f"run{seed}" / "x.pt", seed)
    daemon.send(signal.SIGCONT)
    daemon.wait_for_models(3)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit >= 40_000:  # creating a file makes two events or more
        pytest.skip(f"the kernel's event queue holds {limit} here: it did not overflow, though all converted")
    daemon.wait_for("rescan.finished", reason="event queue overflow")


@pytest.mark.slow
def test_b02_trees_and_races(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """A tree moved in, one copied in, and 200 folders made and filled at once: none is lost."""
    daemon.write_config(workers=2)
    daemon.start()
    drop(tmp_path / "tree" / "deep" / "checkpoints" / "x.pt", 1)
    (tmp_path / "tree").rename(daemon.drop / "moved")
    drop(tmp_path / "other" / "checkpoints" / "x.pt", 2)
    shutil.copytree(tmp_path / "other", daemon.drop / "copied")
    daemon.wait_for_models(2)
    source = drop(tmp_path / "one.pt", 3)
    script = 'for n in $(seq 200); do mkdir -p "$1/$n/a/b" && ln "$2" "$1/$n/a/b/x.pt"; done'
    subprocess.run(["bash", "-c", script, "-", str(daemon.drop), str(source)], check=True)
    daemon.wait_for_models(3)
    done = ("conversion.succeeded", "checkpoint.skipped")
    expected = {str(daemon.drop / str(number) / "a/b/x.pt") for number in range(1, 201)}
    eventually(
        lambda: expected <= {event["path"] for name in done for event in daemon.events(name)},
        "all 200 were looked at",
    )
    assert len(daemon.models()) == 3


def test_b03_root_replaced(daemon: DaemonProcess, drop: Drop) -> None:
    """The watch follows the path, not the folder that once had it."""
    daemon.start()
    old = daemon.base / "old"
    daemon.drop.rename(old)
    daemon.drop.mkdir()
    daemon.wait_for("watch.lost")
    daemon.wait_for("watch.started", count=2)
    drop(daemon.drop / "a" / "new.pt", 1)
    drop(old / "b" / "stale.pt", 2)
    daemon.wait_for_models(1)
    drop(daemon.drop / "c" / "later.pt", 3)
    daemon.wait_for_models(2)
    assert not [event for event in daemon.events("checkpoint.seen") if "stale" in event["path"]]


def test_b03_root_missing_at_start(daemon: DaemonProcess, drop: Drop) -> None:
    """A folder that appears later is watched without a restart; so is one that is removed and made again."""
    daemon.drop.rmdir()
    daemon.start()
    daemon.wait_for("watch.missing")
    drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for_models(1)
    shutil.rmtree(daemon.drop)
    daemon.wait_for("watch.missing", count=2)
    drop(daemon.drop / "b" / "y.pt", 2)
    daemon.wait_for_models(2)


LIMITED = """
echo {limit} > /proc/sys/user/{name} || exit 77
exec "$@"
"""


def limited(name: str, limit: int) -> list[str]:
    """The beginning of a command that runs in a user namespace with a limit of inotify; skips where there are none."""
    probe = LIMITED.format(limit=limit, name=name)
    unshare = ["unshare", "--user", "--map-root-user", "sh", "-c", probe, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no user namespaces here, in which inotify can be limited")
    return unshare


def start_limited(daemon: DaemonProcess, unshare: list[str]) -> None:
    """Start a daemon with a limit of inotify."""
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [*unshare, sys.executable, "-m", "sda_daemon", "run", "--config", str(daemon.config)],
            stdout=log,
            stderr=log,
        )
    daemon.wait_for("rescan.finished")


def limit_running(daemon: DaemonProcess, name: str, limit: int) -> None:
    """Change the limit of a running daemon; the watches that it has stay."""
    enter = ["nsenter", "-t", str(daemon.pid), "-U", "--preserve-credentials", "sh", "-c"]
    subprocess.run([*enter, f"echo {limit} > /proc/sys/user/{name}"], check=True)


@pytest.mark.parametrize(("name", "limit"), [("max_inotify_watches", 2), ("max_inotify_instances", 0)])
def test_b04_watch_limit(daemon: DaemonProcess, drop: Drop, name: str, limit: int) -> None:
    """Without inotify watches or instances it polls, says what to raise, converts, and recovers."""
    unshare = limited(name, limit)
    for number in range(6):
        (daemon.drop / f"run{number}").mkdir()
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "poll_interval_s": 0.5}])
    start_limited(daemon, unshare)
    (degraded,) = daemon.wait_for("watch.degraded")
    assert "sysctl" in degraded["hint"]
    assert "limit reached" in degraded["reason"]
    for number in range(6):
        drop(daemon.drop / f"run{number}" / "x.pt", number)
    daemon.wait_for_models(6)
    limit_running(daemon, name, 1000)
    daemon.wait_for("watch.recovered")
    drop(daemon.drop / "run7" / "x.pt", 7)
    daemon.wait_for_models(7)
    assert daemon.stop() == 0


def test_b04_a_new_folder_beyond_the_watch_limit(daemon: DaemonProcess, drop: Drop) -> None:
    """A folder that comes when the last watch is used up is polled soon, not only after the next rescan."""
    unshare = limited("max_inotify_watches", 1000)
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "poll_interval_s": 0.5}], rescan_interval_s=100_000)
    start_limited(daemon, unshare)
    drop(daemon.drop / "before" / "x.pt", 1)
    daemon.wait_for_models(1)
    assert not daemon.events("rescan.finished", reason="inotify watch limit reached")
    limit_running(daemon, "max_inotify_watches", 0)
    (daemon.drop / "new").mkdir()
    (degraded,) = daemon.wait_for("watch.degraded")
    assert "1 folder is not watched" in degraded["reason"]
    assert "sysctl" in degraded["hint"]
    (shown,) = daemon.status(lambda facts: facts["watches"][0]["problem"])["watches"]
    assert shown["problem"] == degraded["reason"]
    drop(daemon.drop / "new" / "deep" / "x.pt", 2)
    daemon.wait_for_models(2)
    limit_running(daemon, "max_inotify_watches", 1000)
    daemon.wait_for("watch.recovered")
    daemon.status(lambda facts: not facts["watches"][0]["problem"])
    drop(daemon.drop / "new" / "deep" / "y.pt", 3)
    daemon.wait_for_models(3)
    assert daemon.stop() == 0


SABOTAGE = """
import gc, os, signal, sys
from watchdog.observers.inotify_c import InotifyFD
from sda_daemon.cli.app import run_app

def sabotage(number, frame):
    if number == signal.SIGUSR2:  # the readers' threads end, everything else looks alive
        for reader in [thing for thing in gc.get_objects() if isinstance(thing, InotifyFD)]:
            reader._stopped_event.set()
            os.write(reader._kill_w, b"!")
    else:  # every emitter dies with an exception
        from watchdog.observers.inotify import InotifyEmitter
        def die(*_): raise RuntimeError("sabotage")
        InotifyEmitter.queue_events = die

signal.signal(signal.SIGUSR2, sabotage)
signal.signal(signal.SIGALRM, sabotage)
sys.exit(run_app(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGALRM], ids=["reader", "emitter"])
def test_b05_self_healing(daemon: DaemonProcess, drop: Drop, number: signal.Signals) -> None:
    """A watcher thread that dies inside a real daemon is noticed, logged and replaced; the next file converts."""
    daemon.start_within(SABOTAGE)
    daemon.send(number)

    def noticed() -> bool:
        (daemon.drop / f"wake{time.monotonic_ns()}.txt").touch()  # an emitter dies when it has something to do
        return bool(daemon.events("watch.lost"))

    eventually(noticed, "the dead watcher is noticed")
    drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for_models(1)


def _slow_write(source: Path, target: Path) -> None:
    script = 'import sys,time\nd=open(sys.argv[1],"rb").read()\nf=open(sys.argv[2],"wb")\nfor i in range(20):\n' \
             ' f.write(d[i*len(d)//20:(i+1)*len(d)//20]); f.flush(); time.sleep(0.1)\n'  # fmt: skip
    subprocess.run([sys.executable, "-c", script, str(source), str(target)], check=True)


def _rsync(source: Path, target: Path) -> None:
    """What rsync does: a hidden temporary name in the same folder, then a rename."""
    temporary = target.with_name(f".{target.name}.Ab12Cd")
    shutil.copyfile(source, temporary)
    temporary.rename(target)


def _rsync_inplace(source: Path, target: Path) -> None:
    data = source.read_bytes()
    with target.open("wb") as file:
        file.truncate(len(data))
        for start in range(0, len(data), 100_000):
            file.seek(start)
            file.write(data[start : start + 100_000])


def _move_across(source: Path, target: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == target.parent.stat().st_dev:
        pytest.skip("no second file system here to move from")
    elsewhere = other / f"sda-daemon-test-{os.getpid()}.pt"
    shutil.copyfile(source, elsewhere)
    shutil.move(elsewhere, target)


def _copy_with_old_date(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    os.utime(target, (1e9, 1e9))


WAYS: dict[str, Callable[[Path, Path], object]] = {
    "cp": shutil.copyfile,
    "cp-p": _copy_with_old_date,
    "mv": lambda source, target: source.rename(target),
    "mv-across": _move_across,
    "ln": lambda source, target: target.hardlink_to(source),
    "symlink": lambda source, target: target.symlink_to(source),
    "rsync": _rsync,
    "rsync-inplace": _rsync_inplace,
    "replace": os.replace,
    "slow": _slow_write,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that several tests use one after the other, each in a folder of its own below the drop folder."""
    process = DaemonProcess(tmp_path_factory.mktemp("daemon"))
    try:
        yield process.start()
    finally:
        process.kill()


@pytest.mark.parametrize("way", WAYS)
def test_b06_every_way_in(running: DaemonProcess, drop: Drop, tmp_path: Path, way: str) -> None:
    """Whatever puts a file there, it becomes exactly one model, without a failure on the way."""
    mark, before = running.mark(), set(running.files())
    seed = 1 + 2 * list(WAYS).index(way)
    source = drop(tmp_path / "outside" / "x.pt", seed)
    target = running.drop / way / "x.pt"
    target.parent.mkdir()
    WAYS[way](source, target)
    running.wait_for("conversion.succeeded", after=mark, path=str(target))
    last = drop(running.drop / f"{way}-after" / "last.pt", seed + 1)
    running.wait_for("conversion.succeeded", after=mark, path=str(last))
    assert len(running.events("conversion.succeeded", mark)) == 2
    assert len(set(running.files()) - before) == 2
    assert len(running.models()) == len(running.files())
    assert not running.events("conversion.failed", mark)


@pytest.mark.parametrize(("seed", "moment"), [(101, 0), (102, 4_070_908_800)], ids=["1970", "2099"])
def test_b07_clocks(running: DaemonProcess, drop: Drop, seed: int, moment: int) -> None:
    """Files from 1970 and from 2099 convert like any other."""
    path = drop(running.base / f"{seed}.pt", seed)
    os.utime(path, (moment, moment))
    target = path.rename(running.drop / path.name)
    running.wait_for("conversion.succeeded", path=str(target))


CLOCK = """
import signal, sys, time
from sda_daemon.cli.app import run_app
real = time.time
def step(number, frame):
    offset = 86_400 if number == signal.SIGUSR2 else -86_400
    time.time = lambda: real() + offset
signal.signal(signal.SIGUSR2, step)
signal.signal(signal.SIGALRM, step)
sys.exit(run_app(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGALRM], ids=["a day on", "a day back"])
def test_b07_a_step_of_the_clock(daemon: DaemonProcess, drop: Drop, number: signal.Signals) -> None:
    """The wall clock jumps in a running daemon: waiting goes on by the monotonic one, nothing is repeated."""
    daemon.start_within(CLOCK)
    drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for("checkpoint.seen")
    daemon.send(number)
    daemon.wait_for_models(1)
    drop(daemon.drop / "b" / "x.pt", 2)
    daemon.wait_for_models(2)
    assert daemon.cli("status").returncode == 0
    assert len(daemon.events("conversion.started")) == 2
    assert daemon.stop() == 0


def test_names_that_are_not_utf_8(daemon: DaemonProcess, drop: Drop) -> None:
    """Names on disk are bytes: such a checkpoint converts, once, and hinders no one."""
    daemon.start()
    name = os.fsdecode(b"tief\xff\xe4.pt")
    drop(daemon.drop / os.fsdecode(b"l\xe4rm") / name, 1)
    daemon.wait_for_models(1)
    mark = daemon.mark()
    assert daemon.stop() == 0
    daemon.start()
    drop(daemon.drop / "b" / "x.pt", 2)
    daemon.wait_for_models(2)
    assert len(daemon.events("conversion.started", after=mark)) == 1


def test_nested_folders_do_not_see_each_others_files_anew(daemon: DaemonProcess, drop: Drop) -> None:
    """A folder that is watched by itself and as a part of another: each file is converted and seen once."""
    (daemon.drop / "inner").mkdir()
    daemon.write_config(
        watch=[{"path": "drop", "settle_s": 0.2}, {"path": "drop/inner", "settle_s": 0.2}], rescan_interval_s=0.5
    )
    daemon.start()
    drop(daemon.drop / "inner" / "x.pt", 1)
    daemon.wait_for_models(1)
    mark = daemon.mark()
    daemon.wait_for("rescan.finished", count=6, after=mark)
    assert not daemon.events("checkpoint.seen", after=mark)
    assert len(daemon.events("conversion.succeeded")) == 1


def test_b08_polling(daemon: DaemonProcess, drop: Drop, tmp_path: Path) -> None:
    """A polled folder notices files, whole trees and changed content."""
    daemon.write_config(watch=[{"path": "drop", "settle_s": 0.2, "observer": "polling", "poll_interval_s": 0.3}])
    daemon.start()
    assert daemon.events("watch.started")[0]["observer"] == "polling"
    drop(daemon.drop / "a" / "x.pt", 1)
    daemon.wait_for_models(1)
    drop(tmp_path / "tree" / "checkpoints" / "x.pt", 2)
    (tmp_path / "tree").rename(daemon.drop / "tree")
    daemon.wait_for_models(2)
    drop(daemon.drop / "a" / "x.pt", 3)
    daemon.wait_for_models(3)
