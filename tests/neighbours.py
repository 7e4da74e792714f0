"""What someone may put in the place of a small file: things that never end, never answer, or are far too much."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

NOT_REGULAR = "it is no regular file"
FOLDER = "it is a folder, not a file"
DEEP = 100_000


def make_socket(path: Path) -> None:
    """Make a socket, by a short name: those of sockets may not be long."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def make_sparse(path: Path) -> None:
    """Make 2 GB of nothing."""
    with path.open("wb") as file:
        file.truncate(2 * 2**30)


def _link_to_pipe(path: Path) -> None:
    pipe = path.parent / f"{path.name}.pipe"
    os.mkfifo(pipe)
    path.symlink_to(pipe)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (os.mkfifo, NOT_REGULAR),
    "link to a pipe": (_link_to_pipe, NOT_REGULAR),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), NOT_REGULAR),
    "terminal": (lambda path: path.symlink_to("/dev/ptmx"), NOT_REGULAR),
    "file of the kernel": (lambda path: path.symlink_to("/proc/version"), NOT_REGULAR),
    "folder": (lambda path: path.mkdir(), FOLDER),
}
"""How each is made, and what is said of it."""


LARGE: dict[str, tuple[Callable[[Path], None], str]] = {"2 GB": (make_sparse, "it is larger than")}
DEEP_JSON = b'{"a": ' * DEEP + b"1" + b"}" * DEEP
CONTENTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "deep": (lambda path: _write(path, DEEP_JSON), "it is nested too deeply"),
    "fairly deep": (lambda path: _write(path, b'{"a": ' * 500 + b"1" + b"}" * 500), "it is nested too deeply"),
    "other encoding": (lambda path: _write(path, b'{"dataset": "caf\xe9"}'), "it is not JSON"),
    "no JSON": (lambda path: _write(path, b"{"), "it is not JSON"),
    "list": (lambda path: _write(path, b"[1]"), "it must hold keys and values"),
}


SIDECARS = NO_FILES | LARGE | CONTENTS
