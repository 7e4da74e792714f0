"""The journal's native protocol against real datagram sockets, and what becomes of an event."""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon import logs
from sda_daemon.service.journal import Journal, encode_entry, field_name, is_journal_stream


def decode_entry(data: bytes) -> list[tuple[str, str]]:
    """Read an entry as the journal does (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    fields = []
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", data)
            value, data = data[8 : 8 + length], data[8 + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        fields.append((name.decode(), value.decode("utf-8", "surrogateescape")))
    return fields


class Receiver:
    """The journal's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(60.0)

    def receive(self) -> tuple[dict[str, str], bool]:
        """Return the next entry, and whether it came as a sealed memory file."""
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        if not ancillary:
            return dict(decode_entry(data)), False
        assert data == b""
        descriptors = array.array("i")
        descriptors.frombytes(ancillary[0][2][:4])
        with os.fdopen(descriptors[0], "rb") as file:
            seals = fcntl.fcntl(file.fileno(), fcntl.F_GET_SEALS)
            assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            file.seek(0)
            return dict(decode_entry(file.read())), True


@pytest.fixture(params=["path", "abstract"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    """A listening journal, at a path and at an abstract address."""
    address = str(tmp_path / "journal") if request.param == "path" else f"@sda-journal-{os.getpid()}-{id(tmp_path)}"
    receiver = Receiver(address)
    yield receiver
    receiver.socket.close()


NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.text())))
def test_any_value_comes_back_as_it_was(fields: list[tuple[str, str]]) -> None:
    """Line breaks, equals signs and emptiness included."""
    assert decode_entry(encode_entry(fields)) == fields


def test_short_and_long_entries_arrive(receiver: Receiver) -> None:
    """A short one is a datagram; one of a megabyte comes in a sealed file, with every byte."""
    journal = Journal(receiver.address)
    journal.send({"MESSAGE": "short", "SDA_REASON": "two\nlines = two"})
    assert receiver.receive() == ({"MESSAGE": "short", "SDA_REASON": "two\nlines = two"}, False)
    long = "é" * 2**20
    journal.send({"MESSAGE": long, "PRIORITY": "3"})
    assert receiver.receive() == ({"MESSAGE": long, "PRIORITY": "3"}, True)
    journal.close()


def test_a_journal_that_was_restarted_is_found_again(tmp_path: Path) -> None:
    """In between, sending fails and says so; afterwards the same sender goes on."""
    address = str(tmp_path / "journal")
    receiver = Receiver(address)
    journal = Journal(address)
    journal.send({"MESSAGE": "1"})
    receiver.socket.close()
    with pytest.raises(OSError, match="refused"):
        journal.send({"MESSAGE": "2"})
    os.unlink(address)
    again = Receiver(address)
    journal.send({"MESSAGE": "3"})
    assert again.receive()[0] == {"MESSAGE": "3"}
    again.socket.close()
    journal.close()


def test_only_the_stream_itself_is_the_journal(tmp_path: Path) -> None:
    """Device and inode decide, not the variable's presence."""
    with (tmp_path / "a").open("w") as ours, (tmp_path / "b").open("w") as other:
        status = os.fstat(ours.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        assert is_journal_stream(ours.fileno(), stream)
        assert not is_journal_stream(other.fileno(), stream)
        assert not is_journal_stream(ours.fileno(), "")
        assert not is_journal_stream(ours.fileno(), "1:2:3")
    assert not is_journal_stream(10_000, stream)


def test_field_names_are_ones_that_the_journal_takes() -> None:
    """Upper case, no other characters than letters, digits and underscores, at most 64 of them."""
    assert field_name("model_id") == "SDA_MODEL_ID"
    assert field_name("some.key-ä") == "SDA_SOME_KEY__"
    assert len(field_name("x" * 100)) == 64


def test_an_event_as_an_entry() -> None:
    """A sentence, a priority, the event's name and every value; what does not apply is left out."""
    fields = logs.journal_fields(
        {
            "event": "conversion.failed",
            "level": "error",
            "path": "/drop/x.pt",
            "kind": "disk_full",
            "reason": "no space",
            "permanent": False,
            "attempt": 2,
            "retry_in_s": None,
        }
    )
    assert fields == {
        "MESSAGE": "Could not convert /drop/x.pt: no space",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "sda-daemon",
        "SDA_EVENT": "conversion.failed",
        "SDA_PATH": "/drop/x.pt",
        "SDA_KIND": "disk_full",
        "SDA_REASON": "no space",
        "SDA_PERMANENT": "false",
        "SDA_ATTEMPT": "2",
    }


PROGRAM = """
import os, sys
status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}" if sys.argv[1] == "matching" else "1:1"
from sda_daemon import events, logs
from sda_daemon.service import journal
journal.JOURNAL_SOCKET = sys.argv[2]
print(logs.configure_logging("info", "auto"), "JOURNAL_STREAM" in os.environ)
events.CHECKPOINT_VANISHED(path="/drop/x.pt")
logs.print_error("last words")
"""


def run_program(stream: str, address: str) -> subprocess.CompletedProcess[str]:
    """Log an event and last words in a fresh process."""
    command = [sys.executable, "-c", PROGRAM, stream, address]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_auto_takes_the_journal_where_stderr_is_the_journal(receiver: Receiver) -> None:
    """Entries go to the socket, nothing to stderr; the variable is gone before any worker starts."""
    done = run_program("matching", receiver.address)
    assert done.stdout.split() == ["journal", "False"]
    assert done.stderr == ""
    assert receiver.receive()[0]["SDA_EVENT"] == "checkpoint.vanished"
    entry, _ = receiver.receive()
    assert (entry["MESSAGE"], entry["PRIORITY"]) == ("last words", "3")


def test_auto_takes_json_where_the_variable_is_about_another_stream(receiver: Receiver) -> None:
    """As in a terminal or a program below a service."""
    done = run_program("other", receiver.address)
    assert done.stdout.split() == ["json", "False"]
    event, words = done.stderr.splitlines()
    assert json.loads(event)["event"] == "checkpoint.vanished"
    assert words == "sda-daemon: last words"


def test_without_a_journal_events_are_printed() -> None:
    """Nothing is lost when the socket is out of reach."""
    done = run_program("matching", "/nowhere/journal")
    event, words = done.stderr.splitlines()
    assert json.loads(event)["path"] == "/drop/x.pt"
    assert words == "sda-daemon: last words"


HANGING = """
import os, sys
from sda_daemon import events, logs
from sda_daemon.service import journal
journal.JOURNAL_SOCKET = sys.argv[1]
logs.configure_logging("info", "journal")
for number in range(11_000):
    events.CHECKPOINT_VANISHED(path=f"/drop/{number}.pt")
print("done", flush=True)
sys.stdin.read()
logs.flush_log(60.0)
"""


def test_b40_a_journal_that_takes_nothing_holds_nobody_up(tmp_path: Path) -> None:
    """The socket is full, as when journald hangs: what waited comes later, with the number of what is missing."""
    receiver = Receiver(str(tmp_path / "journal"))
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, receiver.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"done\n"
        process.stdin.close()
        entries: list[dict[str, str]] = []
        while not entries or entries[-1]["SDA_EVENT"] != "log.lines_lost":
            entries.append(receiver.receive()[0])
        assert process.wait(60) == 0
    finally:
        process.kill()
        receiver.socket.close()
    *paths, lost = entries
    assert [entry["SDA_PATH"] for entry in paths] == [f"/drop/{number}.pt" for number in range(len(paths))]
    assert len(paths) + int(lost["SDA_COUNT"]) == 11_000
    assert lost["MESSAGE"] == f"Events that could not be written before this one: {lost['SDA_COUNT']}"


GONE = """
import os, sys
from sda_daemon import events, logs
from sda_daemon.service import journal
journal.JOURNAL_SOCKET = sys.argv[1]
logs.configure_logging("info", "journal")
for number in range(3):
    events.CHECKPOINT_VANISHED(path=f"/drop/{number}.pt")
logs.flush_log()
print("done", flush=True)
sys.stdin.read()
events.CHECKPOINT_VANISHED(path="/drop/last.pt")
"""


def test_b40_a_journal_that_was_gone_hears_how_much_it_missed(tmp_path: Path) -> None:
    """Neither its socket nor its stream was there; then it is again."""
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-c", GONE, str(tmp_path / "journal")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=full,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"done\n"
        receiver = Receiver(str(tmp_path / "journal"))
        process.stdin.close()
        assert receiver.receive()[0]["SDA_COUNT"] == "3"
        assert receiver.receive()[0]["SDA_PATH"] == "/drop/last.pt"
        assert process.wait(60) == 0
        receiver.socket.close()
    finally:
        process.kill()
