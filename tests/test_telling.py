"""b40: the thread that tells, its queue, and what becomes of lines that cannot be told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sda_daemon.telling import Teller
from tests.daemon_process import eventually


class Pen:
    """Writes into a list, unless it is told to fail or to hang."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fails = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def line(self, text: str) -> Callable[[], None]:
        """Return what writes a line."""

        def write() -> None:
            assert self.may_go_on.wait(60.0)
            if self.fails:
                raise OSError(28, "No space left on device")
            self.lines.append(text)

        return write

    def lost(self, count: int) -> Callable[[], None]:
        """Return what says how many lines were lost."""
        return self.line(f"lost {count}")

    def fail(self, *, fails: bool) -> None:
        """Let every line fail from now on, or none."""
        self.fails = fails


def make(pen: Pen, most: int = 10, most_bytes: int = 1000) -> Teller:
    """Return a teller that has this pen."""
    teller = Teller(most, most_bytes)
    teller.configure(pen.lost)
    return teller


def test_b40_lines_come_in_their_order() -> None:
    """All of them, once."""
    pen = Pen()
    teller = make(pen, 1000)
    for number in range(500):
        teller.put(pen.line(str(number)))
    assert teller.flush(60.0)
    assert pen.lines == [str(number) for number in range(500)]


def test_b40_a_full_queue_loses_the_newest_and_says_how_many_where_they_are_missing() -> None:
    """Between the last line before and the first one after."""
    pen = Pen()
    teller = make(pen)
    pen.may_go_on.clear()
    teller.put(pen.line("under way"))
    eventually(lambda: teller.waiting == 0, "the first line is under way")
    for number in range(15):
        teller.put(pen.line(str(number)))
    assert not teller.flush(0.0)
    pen.may_go_on.set()
    eventually(lambda: teller.flush(60.0), "it goes on")
    teller.put(pen.line("after"))
    assert teller.flush(60.0)
    assert pen.lines == ["under way", *(str(number) for number in range(10)), "lost 5", "after"]


def test_b40_large_lines_fill_the_queue_sooner() -> None:
    """Memory is what is limited."""
    pen = Pen()
    teller = make(pen)
    pen.may_go_on.clear()
    for number in range(6):
        teller.put(pen.line(str(number)), 300)
    pen.may_go_on.set()
    assert teller.flush(60.0)
    assert pen.lines[:3] == ["0", "1", "2"]
    assert pen.lines[-1] in ("lost 2", "lost 3")


def test_b40_lines_that_fail_are_counted_until_one_can_be_told() -> None:
    """The count comes first, then the line; also if nothing more is to be said."""
    pen = Pen()
    teller = make(pen)
    teller.put(pen.line("before"))
    assert teller.flush(60.0)
    pen.fail(fails=True)
    for number in range(3):
        teller.put(pen.line(str(number)))
    assert teller.flush(60.0)
    pen.fail(fails=False)
    teller.put(pen.line("after"))
    assert teller.flush(60.0)
    assert pen.lines == ["before", "lost 3", "after"]
    teller.miss()
    eventually(lambda: pen.lines[-1] == "lost 1", "told without another line")


def test_b40_a_queue_that_hangs_holds_nobody_up() -> None:
    """Ten thousand lines for it take next to no time."""
    pen = Pen()
    teller = make(pen)
    pen.may_go_on.clear()
    before = time.monotonic()
    for number in range(10_000):
        teller.put(pen.line(str(number)))
    assert time.monotonic() - before < 5.0
    assert not teller.flush(0.2)
    before = time.monotonic()
    assert not teller.flush(60.0)  # it has not gone on since
    assert time.monotonic() - before < 30.0
    pen.may_go_on.set()
    eventually(lambda: teller.flush(60.0), "it goes on")


def test_b40_a_burst_loses_nothing_where_somebody_reads() -> None:
    """A loop that only logs is held up for moments, and has every line."""
    pen = Pen()
    teller = make(pen, 100, 10**6)
    for number in range(20_000):
        teller.put(pen.line(str(number)), 10)
    assert teller.flush(60.0)
    assert len(pen.lines) == 20_000


HALF = """
import resource, signal, sys
from sda_daemon.telling import Stream
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = open(sys.argv[1], "wb", buffering=0)
stream = Stream(file.fileno())
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
stream.write(b"whole\\n")
try:
    stream.write(b"too long for this disk\\n")
except OSError:
    pass
else:
    sys.exit("it was written")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
stream.write(b"next\\n")
"""


def test_b40_a_line_after_half_a_line_begins_anew(tmp_path: Path) -> None:
    """A full disk may take the beginning of a line; the next one can be parsed all the same."""
    path = tmp_path / "log"
    subprocess.run([sys.executable, "-c", HALF, str(path)], check=True)
    assert path.read_bytes() == b"whole\ntoo \nnext\n"


FORK = """
import os, sys
from sda_daemon import events
from sda_daemon.logs import configure_logging, flush_log
configure_logging("info", "json")
for number in range(200):
    events.CHECKPOINT_VANISHED(path=f"parent {number}")
    if number % 20 == 0:
        child = os.fork()
        if not child:
            events.CHECKPOINT_VANISHED(path="child")
            os._exit(0 if flush_log(60.0) else 1)
        assert os.waitpid(child, 0)[1] == 0
"""


def test_b40_a_forked_process_tells_its_own_and_never_locks_up() -> None:
    """Each line once, whoever of the two had it."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, check=True, timeout=120)
    paths = [json.loads(line)["path"] for line in done.stderr.splitlines()]
    assert paths.count("child") == 10
    assert [path for path in paths if path != "child"] == [f"parent {number}" for number in range(200)]


MANY = """
import sys
from sda_daemon import events
from sda_daemon.logs import configure_logging
configure_logging("info", "json")
for number in range(12_000):
    events.CHECKPOINT_VANISHED(path=f"/drop/{number}.pt")
print("done", flush=True)
sys.stdin.read()
"""


def test_b40_whoever_reads_late_learns_what_is_missing() -> None:
    """As many lines as wait are kept, the rest is a number: together all of them."""
    process = subprocess.Popen(
        [sys.executable, "-c", MANY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline() == b"done\n"
        process.stdin.close()
        told = [json.loads(line) for line in process.stderr]
        assert process.wait(60) == 0
    finally:
        process.kill()
    counts = [event["count"] for event in told if event["event"] == "log.lines_lost"]
    paths = [event["path"] for event in told if event["event"] == "checkpoint.vanished"]
    assert paths == [f"/drop/{number}.pt" for number in range(len(paths))]
    assert len(counts) == 1
    assert len(paths) + counts[0] == 12_000
    assert len(paths) >= 10_000


ERROR = """
import os, sys
from sda_daemon import events
from sda_daemon.logs import configure_logging, flush_log
if sys.argv[1] != "commands":
    configure_logging("info", sys.argv[1])
class Odd:
    def __repr__(self): raise OSError("no words")
    __str__ = __repr__
os.close(2)
os.open("/dev/full", os.O_WRONLY)
try:
    events.CHECKPOINT_VANISHED(path="/drop/x.pt")
    events.CHECKPOINT_VANISHED(path=Odd())
    os.rename(sys.argv[2], sys.argv[2] + ".moved")
except OSError as error:
    sys.exit(f"taken for an error of the rename: {error}")
if sys.argv[1] != "commands":
    flush_log()
"""


@pytest.mark.parametrize("log_format", ["json", "console", "journal", "commands"])
def test_b40_an_error_of_telling_is_no_error_of_what_is_told(tmp_path: Path, log_format: str) -> None:
    """Neither of writing nor of finding words."""
    path = tmp_path / "x.pt"
    path.touch()
    command = [sys.executable, "-c", ERROR, log_format, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["x.pt.moved"]
