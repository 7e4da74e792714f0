"""Hands a file to every reader that there is and tells what became of it: result, time, memory, and what it set off.

Runs in a process of its own, which the file may crash or hang: whoever started it learns that by its exit status.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import dataclasses
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sda_daemon.errors import CheckpointError, ModelFileError
from sda_daemon.library.editing import write_edited
from sda_daemon.models import header_process
from sda_daemon.models.checkpoint import read_checkpoint
from sda_daemon.models.header import read_model_details, read_model_header
from sda_daemon.models.header_process import read_header_apart
from sda_daemon.models.inspection import inspect_file
from sda_daemon.models.loading import load_model
from sda_daemon.torchfile.archive import open_regular
from sda_daemon.torchfile.faults import Fault
from sda_daemon.torchfile.reader import Wishes, read_contents
from sda_daemon.torchfile.resident import resident_bytes

TIME_LIMIT_S, TIME_LIMIT_S_PER_BYTE = 0.5, 20e-9
MEMORY_LIMIT_BYTES, MEMORY_LIMIT_PER_BYTE = 50_000_000, 3
_HANG_S, _HANG_S_PER_BYTE = 5.0, 200e-9
"""CPU time after which a reader is killed: it hangs."""
_ADDRESS_SPACE_BYTES = 3 * 2**30
"""More than any reader may take beyond what the process has, so that no file harms the machine."""
_RENEWED_NAME = "renamed by the fuzzer"
_MUCH_MEMORY = "its values take more than"
_NO_MEMORY = "asks for more memory than there is"
_ACTS = frozenset({"exec", "compile", "import", "pickle.find_class", "marshal.loads", "marshal.load", "ctypes.dlopen"})
_ROOMS = ("os.", "subprocess.", "socket.", "shutil.", "urllib.", "webbrowser.", "pty.", "code.", "tempfile.", "signal.")
_PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reader made of a file.

    Attributes:
        reader: its name.
        result: "ok", or the name of the error's class.
        foreign: an error that is none of the program's own, as text; empty for none.
        time_s: CPU time.
        memory_bytes: growth of the resident set at its highest.
        acts: audit events that a reader has no business to raise.
    """

    reader: str
    result: str
    foreign: str = ""
    time_s: float = 0.0
    memory_bytes: int = 0
    acts: tuple[str, ...] = ()


def time_limit_s(size_bytes: int) -> float:
    """Return the CPU time in which a file of this size is to be judged."""
    return TIME_LIMIT_S + TIME_LIMIT_S_PER_BYTE * size_bytes


def memory_limit_bytes(size_bytes: int) -> int:
    """Return the memory with which a file of this size is to be judged."""
    return MEMORY_LIMIT_BYTES + MEMORY_LIMIT_PER_BYTE * size_bytes


def breaks_a_limit(reading: Reading, size_bytes: int) -> bool:
    """Tell whether a file of this size took too long or too much."""
    return reading.time_s > time_limit_s(size_bytes) or reading.memory_bytes > memory_limit_bytes(size_bytes)


def least(one: Reading, other: Reading) -> Reading:
    """Return the other reading of the same file, with the lower of each cost and all that both have set off."""
    acts = (*one.acts, *other.acts)
    time_s, memory_bytes = min(one.time_s, other.time_s), min(one.memory_bytes, other.memory_bytes)
    return dataclasses.replace(other, time_s=time_s, memory_bytes=memory_bytes, acts=acts)


# --- the readers --------------------------------------------------------------------------------------


def _contents(path: Path) -> None:
    with open(open_regular(path), "rb", buffering=4096) as file:
        read_contents(file, os.fstat(file.fileno()).st_size, Wishes(with_digest=True))


def _lenient(path: Path) -> None:
    with open(open_regular(path), "rb", buffering=4096) as file:
        read_contents(file, os.fstat(file.fileno()).st_size, Wishes(lenient=True))


def _apart(path: Path) -> None:
    """The result must be that of `read_model_header`; the process that it keeps must not have died of it."""
    child = header_process._shared._child
    try:
        found: Any = read_header_apart(path)
    except ModelFileError as error:
        if "to look into it takes more time or memory" in error.what:
            raise Discrepancy(error.what) from error
        found = error
    if child is not None and child.poll() not in (None, 0):
        raise Discrepancy(f"the process that reads headers died with {child.poll()}")
    try:
        expected: Any = read_model_header(path)
    except ModelFileError as error:
        expected = error
    # What a process has free to begin with is not the same: what takes much memory may be refused by one of them.
    if str(found) != str(expected) and _MUCH_MEMORY not in f"{found} {expected}":
        raise Discrepancy(f"read apart it is {str(found)[:300]!r}, else {str(expected)[:300]!r}")
    if isinstance(found, ModelFileError):
        raise found


def _inspected(path: Path) -> None:
    found = inspect_file(path)
    for problem in found.problems:
        if problem.startswith("not all of it can be shown"):
            raise Discrepancy(problem)
        if _NO_MEMORY in problem:
            raise MemoryError(problem)


def _edited(path: Path) -> None:
    """A file whose header can be read can be edited, or there is a reason; what comes out has the new name."""
    target = path.with_name("edited")
    try:
        write_edited(path, target, {"name": _RENEWED_NAME})
        if read_model_header(target).metadata.name != _RENEWED_NAME:
            raise Discrepancy("its edited copy has another name than it was given")
    finally:
        target.unlink(missing_ok=True)


class Discrepancy(Exception):
    """A reader's result contradicts another's, or its own promise."""


READERS: dict[str, Callable[[Path], object]] = {
    "contents": _contents,
    "lenient": _lenient,
    "checkpoint": read_checkpoint,
    "header": read_model_header,
    "details": read_model_details,
    "apart": _apart,
    "load": load_model,
    "inspect": _inspected,
    "edit": _edited,
}
_OWN = (CheckpointError, ModelFileError, Fault, OSError)


# --- what they set off ----------------------------------------------------------------------------------


class Watch:
    """Notes audit events; a hook cannot be taken away again, so there is one for the life of the process."""

    def __init__(self) -> None:
        self.folder = ""
        self.seen: list[str] | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.seen is None:
            return
        if event == "open":
            is_writing = args[1] not in ("r", "rb", None) or (isinstance(args[2], int) and args[2] & os.O_ACCMODE)
            if not is_writing:
                return
        elif event not in _ACTS and not event.startswith(_ROOMS):
            return
        if not self._is_ours(event, args):
            self.seen.append(f"{event} {str(args)[:200]}")

    def _is_ours(self, event: str, args: tuple[Any, ...]) -> bool:
        """Tell whether it is the edited copy that is written or removed, or the process that reads headers."""
        if event in ("open", "os.remove", "os.chmod"):
            first = args[0]
            return isinstance(first, int) or os.fspath(first).startswith(self.folder)
        if event == "subprocess.Popen":
            return args[0] == sys.executable and header_process._PROGRAM in args[1]
        child = header_process._shared._child
        return event == "os.kill" and child is not None and args[0] == child.pid

    @contextlib.contextmanager
    def noting(self, folder: Path) -> Iterator[list[str]]:
        """Note what happens meanwhile; only inside this folder may something be written."""
        self.folder, self.seen = f"{folder}{os.sep}", []
        seen = self.seen
        try:
            yield seen
        finally:
            self.seen = None


# --- measuring --------------------------------------------------------------------------------------------


class Memory:
    """The process's resident set: what it is now, and its highest since the last look."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)

    def begin(self) -> None:
        """Give back what is free, and begin to watch for the highest."""
        trim = getattr(self._libc, "malloc_trim", None)
        if trim is not None:
            trim(0)
        with contextlib.suppress(OSError):  # then the highest is that of the process's whole life: an upper bound
            Path("/proc/self/clear_refs").write_text("5")

    def now(self) -> int:
        """Return the bytes that are resident."""
        return resident_bytes()

    def highest(self) -> int:
        """Return the most bytes that were resident since `begin`."""
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


class Judge:
    """Judges one file after the other; see `READERS`.

    Growth of memory is counted from what the process had when it was new, so what earlier files left behind counts
    against a file: too much, never too little. A file that seems to break a limit is to be judged by a new process.

    Args:
        warm_up: files that are read first.
        is_watched: whether audit events are noted, for which Python calls a function each time, also at each `id()`.
    """

    def __init__(self, warm_up: list[Path], *, is_watched: bool = True) -> None:
        torch.set_num_threads(1)
        self._memory = Memory()
        for path in warm_up:  # what is imported late, and the pages of libraries that readers use
            for _ in range(2):
                for reader in READERS.values():
                    with contextlib.suppress(*_OWN):
                        reader(path)
        for encoding in ("utf-32-le", "utf-32-be", "raw_unicode_escape", "latin-1"):
            codecs.lookup(encoding)
        gc.collect()
        gc.freeze()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE_BYTES
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESS_SPACE_BYTES, hard))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        self._memory.begin()
        self._floor = self._memory.now()
        self._watch = Watch() if is_watched else None

    def judge(self, path: Path, readers: list[str] | None = None) -> list[Reading]:
        """Return what each reader made of the file; `<path>.stage` has the name of the one that is at work."""
        size_bytes = path.stat().st_size
        stage = path.with_name(path.name + ".stage")
        readings = []
        for name in readers or READERS:
            stage.write_text(name)
            readings.append(self._read(name, path, size_bytes))
        stage.unlink()
        return readings

    def _read(self, name: str, path: Path, size_bytes: int) -> Reading:
        result, foreign = "ok", ""
        self._memory.begin()
        signal.setitimer(signal.ITIMER_PROF, _HANG_S + _HANG_S_PER_BYTE * size_bytes)
        began = time.process_time()
        watch: contextlib.AbstractContextManager[list[str]] = contextlib.nullcontext([])
        with watch if self._watch is None else self._watch.noting(path.parent) as seen:
            try:
                READERS[name](path)
            except _OWN as error:
                result = type(error).__name__
                if _NO_MEMORY in str(error):
                    foreign = str(error)
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                result = type(error).__name__
                foreign = f"{result}: {str(error)[:300]}"
        time_s = time.process_time() - began
        signal.setitimer(signal.ITIMER_PROF, 0)
        memory = max(0, self._memory.highest() - self._floor)
        gc.collect()
        return Reading(name, result, foreign, time_s, memory, tuple(seen))


def as_dict(reading: Reading) -> dict[str, Any]:
    """Return a reading for JSON."""
    return dataclasses.asdict(reading)
