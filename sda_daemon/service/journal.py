"""Writes entries with fields into systemd's journal: its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

An entry is one datagram of `FIELD=value` lines; a value with line breaks is length-prefixed. An entry too
long for a datagram travels in a sealed memory file whose descriptor is sent instead.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from sda_daemon.wording import text_of, well_formed

JOURNAL_SOCKET = "/run/systemd/journal/socket"
STREAM_VARIABLE = "JOURNAL_STREAM"
MAX_FIELD_NAME = 64
_NO_FIELD_CHARACTER = re.compile(r"[^A-Z0-9_]")
_TOO_LONG = (errno.EMSGSIZE, errno.ENOBUFS)
# What the journal demands of a memory file: no one can change it any more.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def is_journal_stream(descriptor: int, stream: str) -> bool:
    """Tell whether a descriptor is the journal's own, by `JOURNAL_STREAM` (`device:inode`).

    The variable alone does not tell: programs started by a service inherit it with other descriptors.
    """
    device, _, inode = stream.partition(":")
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def field_name(key: str, prefix: str = "SDA_") -> str:
    """Return the journal's name for a key: `model_id` becomes `SDA_MODEL_ID`."""
    return (prefix + _NO_FIELD_CHARACTER.sub("_", key.upper()))[:MAX_FIELD_NAME]


def field_value(value: Any) -> str:
    """Return a value as text: true and false as JSON writes them, the rest as it prints."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return text_of(value)


def encode_entry(fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> bytes:
    """Return one entry in the journal's format. Names must be valid field names already."""
    parts: list[bytes] = []
    for name, value in fields.items() if isinstance(fields, Mapping) else fields:
        content = _bytes_of(value)
        if b"\n" in content:
            parts += [name.encode(), b"\n", struct.pack("<Q", len(content)), content, b"\n"]
        else:
            parts += [name.encode(), b"=", content, b"\n"]
    return b"".join(parts)


def _bytes_of(value: str) -> bytes:
    """Return a value as it stands in the journal: paths byte for byte, other texts as far as UTF-8 goes."""
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return well_formed(value).encode()


class Journal:
    """Sends entries to the journal.

    Args:
        address: its socket, if not the usual one; an abstract one begins with `@`.
        timeout_s: how long to wait for a journal that takes nothing; without it, for ever.
    """

    def __init__(self, address: str | None = None, timeout_s: float | None = None) -> None:
        place = address or JOURNAL_SOCKET
        self._address = "\0" + place[1:] if place.startswith("@") else place
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout_s)

    def send(self, fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        """Send one entry.

        Not connected: a journal that was restarted meanwhile is found again.

        Raises:
            OSError: there is no journal, or it refuses.
        """
        self.send_entry(encode_entry(fields))

    def send_entry(self, entry: bytes) -> None:
        """Send an entry that is encoded already; see `send`."""
        try:
            self._socket.sendto(entry, self._address)
        except OSError as error:
            if error.errno not in _TOO_LONG:
                raise
            self._send_file(entry)

    def _send_file(self, entry: bytes) -> None:
        descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(entry)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            self._socket.sendmsg([], [rights], 0, self._address)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
