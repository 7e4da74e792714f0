"""Standard streams that break no command: closed ones, full ones, ones that nobody reads, ones of few characters.

A command does what it is there for, whoever hears of it. What stdout does not take any more is let go, and told once in
the end; what stderr does not take is let go.
"""

from __future__ import annotations

import io
import os
import sys
from select import PIPE_BUF
from typing import TYPE_CHECKING, TextIO

from sda_daemon.telling import wait_until_writable

if TYPE_CHECKING:
    from typing_extensions import Buffer

_STANDARD = range(3)


class _Output(io.RawIOBase):
    """Writes to a descriptor until that fails, and to nowhere from then on.

    Attributes:
        error: why it failed.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._patience_s: float | None = None

    def hurry(self, patience_s: float) -> None:
        """Wait no longer than this, from now on, for one who does not read."""
        self._patience_s = patience_s

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Tell that it takes whatever comes."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Write all of it, or as much as can be written."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self.error is None:
            try:
                rest = rest[self._write_some(rest) :]
            except BlockingIOError:  # whoever shares it with us does not want to wait; we do
                wait_until_writable(self._descriptor)
            except OSError as error:
                self.error = error
        return size

    def _write_some(self, data: memoryview) -> int:
        if self._patience_s is None:
            return os.write(self._descriptor, data)
        if not wait_until_writable(self._descriptor, self._patience_s):
            raise TimeoutError
        return os.write(self._descriptor, data[:PIPE_BUF])  # so much never blocks where anything fits


class StandardStreams:
    """stdin, stdout and stderr of a command line, made safe to use."""

    def __init__(self) -> None:
        _open_closed()
        if sys.stdin is None:
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process lives
        self._out = _Output(1)
        if sys.stdout is sys.__stdout__:
            sys.stdout = _text(self._out, sys.stdout, errors="replace", by_line=os.isatty(1))
        elif isinstance(sys.stdout, io.TextIOWrapper):  # somebody else's
            sys.stdout.reconfigure(errors="replace")
        if sys.stderr is sys.__stderr__:
            sys.stderr = _text(_Output(2), sys.stderr, errors="backslashreplace", by_line=True)

    def why_cut(self) -> OSError | None:
        """Return why stdout did not take everything; None if it did, or if its reader did not want more."""
        sys.stdout.flush()
        return None if isinstance(self._out.error, BrokenPipeError) else self._out.error


def hurry_stderr(patience_s: float) -> None:
    """Let words on stderr wait no longer than this, in seconds, for one who does not read them."""
    raw = getattr(getattr(sys.stderr, "buffer", None), "raw", None)
    if isinstance(raw, _Output):
        raw.hurry(patience_s)


def _open_closed() -> None:
    """Lead closed standard descriptors nowhere: the next file to be opened must not become stderr."""
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _text(output: _Output, before: TextIO | None, *, errors: str, by_line: bool) -> TextIO:
    encoding = before.encoding if before is not None else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(output), encoding, errors, line_buffering=by_line)
