"""Reads headers of model files where a hang or a bomb does no harm.

The readers are made so that no file takes more than its size is worth. What could take more than a moment all the same
is read in a process of its own, with limits, as a second line for what nobody thought of: a file that breaks them costs
that process. It is started when there is such a file, and ends by itself when there has been none for a while.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import errno
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import sda_daemon
from sda_daemon import errors
from sda_daemon.errors import BrokenModelError, ModelFileError
from sda_daemon.models.formats import format_called
from sda_daemon.models.header import ModelHeader, read_model_header
from sda_daemon.models.metadata import ModelMetadata
from sda_daemon.torchfile.faults import TooLarge
from sda_daemon.torchfile.reader import Wishes

CPU_LIMIT_S = 1.0
CPU_LIMIT_S_PER_BYTE = 40e-9
"""Twice what a file may take; only as much as the process itself computes counts, however busy the machine is."""
MEMORY_LIMIT_BYTES = 96 * 2**20
MEMORY_LIMIT_PER_BYTE = 3
_WALL_LIMIT_S = 120.0
"""For a file system that does not answer."""
_IDLE_S = 10.0
_AT_ONCE = Wishes(max_pickle_bytes=256 * 1024, max_directory_bytes=256 * 1024)
"""What takes some milliseconds, and a tenth of a second at the worst."""
_LENGTH = struct.Struct("<I")
_LARGEST_ANSWER = 64 * 2**20
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from sda_daemon.models.header_process import serve; serve()"


class HeaderProcess:
    """The parent's end. Safe to use from several threads, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def read(self, path: Path) -> ModelHeader:
        """Return what `read_model_header` returns; the same is raised, too.

        Raises:
            BrokenModelError: reading it took more time or memory than its size is worth.
            ModelFileError, OSError: see `read_model_header`.
        """
        with self._lock:
            answer = self._ask(os.fsencode(path))
        if answer is None:
            raise BrokenModelError(
                f"{path} is too costly to read: to look into it takes more time or memory than a file of its size may",
                "Save it again with less in it",
            )
        return _understood(answer, path)

    def close(self) -> None:
        """End the process; the next read starts another one."""
        with self._lock:
            self._end()

    def _ask(self, question: bytes) -> dict[str, Any] | None:
        """Return the answer, None where the process died of it."""
        for is_second in (False, True):
            child = self._running()
            try:
                assert child.stdin is not None
                child.stdin.write(_LENGTH.pack(len(question)) + question)
                child.stdin.flush()
                return self._answer(child)
            except (BrokenPipeError, EOFError):
                code = self._end()
                if is_second or code:
                    return None  # of a signal, or killed by us; with 0 it had only been idle for too long
        return None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._pid != os.getpid():  # forked: the pipes are the other process's
            self._child, self._pid = None, os.getpid()
        if self._child is None or self._child.poll() is not None:
            self._end()
            root = str(Path(sda_daemon.__file__).parent.parent)
            self._child = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, root],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is not for it
            )
        return self._child

    def _answer(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert child.stdout is not None
        until = time.monotonic() + _WALL_LIMIT_S
        head = _read_exactly(child.stdout, _LENGTH.size, until)
        length = _LENGTH.unpack(head)[0]
        if length > _LARGEST_ANSWER:
            raise EOFError
        answer: dict[str, Any] = json.loads(_read_exactly(child.stdout, length, until))
        return answer

    def _end(self) -> int:
        """End the process and return its exit code; a negative one is that of a signal."""
        child, self._child = self._child, None
        if child is None:
            return 0
        with contextlib.suppress(OSError):
            assert child.stdin is not None
            child.stdin.close()
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()
        finally:
            assert child.stdout is not None
            child.stdout.close()


def _read_exactly(stream: Any, count: int, until: float) -> bytes:
    """Read so many bytes of a pipe.

    Raises:
        EOFError: it ended, or the time is over.
    """
    parts = []
    while count:
        left = until - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            raise EOFError
        part = os.read(stream.fileno(), min(count, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _understood(answer: dict[str, Any], path: Path) -> ModelHeader:
    if "errno" in answer:
        raise OSError(answer["errno"], answer["strerror"], str(path))
    if "error" in answer:
        kind = getattr(errors, answer["error"], BrokenModelError)
        raise (kind if issubclass(kind, ModelFileError) else BrokenModelError)(answer["what"], answer["hint"])
    header = answer["header"]
    named = {
        "metadata": ModelMetadata(**header["metadata"]),
        "format": format_called(header["format"]["name"]),
        "further": tuple(header["further"]),
    }
    return ModelHeader(**{**header, **named})


_shared = HeaderProcess()
atexit.register(_shared.close)


def read_header_apart(path: Path) -> ModelHeader:
    """Read a header: at once where it is small, as real ones are, else in the process that this one keeps for it.

    Raises:
        ModelFileError, OSError: see `HeaderProcess.read`.
    """
    try:
        return read_model_header(path, _AT_ONCE)
    except ModelFileError as error:
        if not isinstance(error.__cause__, TooLarge) or not sys.executable:  # or inside of another program
            raise
    return _shared.read(path)


# --- the process itself -----------------------------------------------------------------------------


def serve() -> None:
    """Answer questions until there are no more."""
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while select.select([questions], [], [], _IDLE_S)[0]:
        head = questions.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return
        path = Path(os.fsdecode(questions.read(_LENGTH.unpack(head)[0])))
        answer = json.dumps(_limited(path)).encode()
        answers.write(_LENGTH.pack(len(answer)) + answer)
        answers.flush()


def _limited(path: Path) -> dict[str, Any]:
    """Read one file within the limits of its size."""
    try:
        size_bytes = path.lstat().st_size
    except (OSError, ValueError):
        size_bytes = 0
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if _HAS_PROC else 0
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if used:
        limit = used + MEMORY_LIMIT_BYTES + MEMORY_LIMIT_PER_BYTE * size_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S + CPU_LIMIT_S_PER_BYTE * size_bytes)
    try:
        return _answer_of(path)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


_HAS_PROC = os.path.exists("/proc/self/statm")  # noqa: PTH110 - of a string


def _answer_of(path: Path) -> dict[str, Any]:
    try:
        header = read_model_header(path)
    except ModelFileError as error:
        return {"error": type(error).__name__, "what": error.what, "hint": error.hint}
    except OSError as error:
        return {"errno": error.errno or errno.EIO, "strerror": error.strerror or str(error)}
    except ValueError as error:  # a name with a NUL
        return {"errno": errno.EINVAL, "strerror": str(error)}
    return {"header": dataclasses.asdict(header)}
