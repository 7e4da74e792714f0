"""The index file `model_library.json`: reading whatever may be there, writing it quickly and safely.

It is shared with the training application, which reads it with Python's `json` and builds its entry from exactly the
fields that its generation knows. One entry is one line, so that a diff shows what changed and so that a rewrite only
joins lines that are already encoded. What it says is the matter of `content`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sda_daemon import events
from sda_daemon.access import Access, give_access
from sda_daemon.errors import LibraryError, LibraryUnreadableError, NewerIndexError
from sda_daemon.files import write_atomic
from sda_daemon.garbage import without_garbage_collection
from sda_daemon.library.content import IndexContent, parse_index
from sda_daemon.library.scan import find_links
from sda_daemon.os_errors import is_refusal
from sda_daemon.small_files import read_small_file, read_with_status

INDEX_FILE_NAME = "model_library.json"
MAX_INDEX_BYTES = 2**29
_TORN_WRITE_S = 0.5
"""How long an unreadable index is given since it last changed: someone may be in the middle of writing it."""
_LONGEST_TORN_WRITE_S = 10.0
_encode = json.JSONEncoder(ensure_ascii=True, separators=(", ", ": ")).encode


@dataclass(frozen=True, slots=True)
class IndexSignature:
    """What tells one content of the index file from another without reading it."""

    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    access: Access

    @classmethod
    def of(cls, status: os.stat_result) -> IndexSignature:
        """Take the signature from a stat result."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, Access.of(status))


def index_signature(path: Path) -> IndexSignature | None:
    """Return the signature of the index file, None where there is none."""
    try:
        return IndexSignature.of(path.stat())
    except FileNotFoundError:
        return None


def is_mentioned(folder: Path, *texts: str) -> bool:
    """Tell whether a library may have a model with an id or name, without decoding its index: for one quick look.

    True where the index cannot be read now, or is just being written; the library itself sees to that.
    """
    try:
        raw = read_small_file(folder / INDEX_FILE_NAME, MAX_INDEX_BYTES)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return any(_encode(text).encode() in raw for text in texts) or not raw.rstrip().endswith(b"}")


class BrokenIndex(Exception):
    """The index cannot be understood; `reason` says why, `raw` is what was read."""

    def __init__(self, reason: str, signature: IndexSignature, raw: bytes) -> None:
        super().__init__(reason)
        self.reason = reason
        self.signature = signature
        self.raw = raw


def read_index(path: Path) -> tuple[IndexContent, IndexSignature]:
    """Read the index as it is at this moment.

    Raises:
        BrokenIndex: it cannot be understood, perhaps because someone is just writing it.
        NewerIndexError: written by a later version.
        FileNotFoundError: there is none.
        LibraryError: it cannot be opened.
    """
    try:
        raw, status = read_with_status(path, MAX_INDEX_BYTES)
        signature = IndexSignature.of(status)
    except FileNotFoundError:
        raise
    except OSError as error:
        kind = LibraryUnreadableError if is_refusal(error) else LibraryError
        hint = (
            "Check its owner and permissions"
            if is_refusal(error)
            else "See what has taken its place, and move that away"
        )
        raise kind(f"{path} cannot be read: {error.strerror}", hint) from error
    try:
        with without_garbage_collection():
            return parse_index(raw, find_links(path.parent)), signature
    except NewerIndexError as error:
        raise NewerIndexError(f"{path}: {error.what}", error.hint) from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BrokenIndex(reason, signature, raw) from None


def load_index(path: Path) -> tuple[IndexContent, IndexSignature | None]:
    """Read the index; a missing one is empty.

    The training application writes it in place and without a lock, so an unreadable one is given time:
    half a second since it last changed.

    Raises:
        BrokenIndex: it stays unreadable.
        NewerIndexError: written by a later version.
        LibraryError: it cannot be opened.
    """
    last: IndexSignature | None = None
    quiet_at = 0.0
    gives_up_at = time.monotonic() + _LONGEST_TORN_WRITE_S
    while True:
        try:
            return read_index(path)
        except FileNotFoundError:
            return IndexContent(links=find_links(path.parent)), None
        except BrokenIndex as broken:
            now = time.monotonic()
            if broken.signature != last:
                last, quiet_at = broken.signature, now + _TORN_WRITE_S
            if now >= min(quiet_at, gives_up_at):
                raise
        time.sleep(_TORN_WRITE_S / 10)


def recover_index(path: Path, broken: BrokenIndex, *, keep: bool = True) -> IndexContent:
    """Read the backup in place of a broken index, or start empty; the caller repairs what is missing.

    The broken file stays where it is until the recovered index is written over it: a crash in between
    leaves all as it was. With `keep` it also gets a dated name, under which it remains.

    Raises:
        OSError: the broken file cannot be kept.
    """
    backup, links = backup_path(path), find_links(path.parent)
    kept_as = _keep_broken(path, broken.raw) if keep else None
    try:
        content = parse_index(read_small_file(backup, MAX_INDEX_BYTES), links)
        recovered_from = backup.name
    except FileNotFoundError:
        content, recovered_from = IndexContent(links=links), "nothing"
    except (ValueError, OSError, RecursionError, NewerIndexError) as error:
        content, recovered_from = IndexContent(links=links), f"nothing ({backup.name}: {error})"
    events.LIBRARY_INDEX_BROKEN(
        file=str(path), kept_as=kept_as.name if kept_as else "", reason=broken.reason, recovered_from=recovered_from
    )
    return replace(content, is_recovered=True)


def _keep_broken(path: Path, raw: bytes) -> Path:
    """Write what could not be understood to a dated name of its own; the same content only once."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for kept in path.parent.glob(f"{path.name}.broken-*"):
        with contextlib.suppress(OSError):  # one that cannot be read is another one's affair
            if kept.stat().st_size == len(raw) and read_small_file(kept, len(raw)) == raw:
                return kept
    number = 0
    while True:
        target = path.with_name(f"{path.name}.broken-{stamp}" + (f"-{number}" if number else ""))
        if not target.exists():
            write_atomic(target, [raw])
            return target
        number += 1


def backup_path(path: Path) -> Path:
    """Return where the previous index is kept."""
    return path.with_name(path.name + ".bak")


def give_index_access(path: Path, signature: IndexSignature, access: Access) -> IndexSignature:
    """Give the index another mode and group, as far as this user may, if it is still the one of this signature.

    Returns:
        Its signature afterwards.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return signature
    try:
        if IndexSignature.of(os.fstat(descriptor)) != signature:
            return signature
        give_access(descriptor, access)
        return IndexSignature.of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def write_index(
    path: Path, chunks: Iterator[bytes], *, keep_backup: bool = True, access: Access | None = None
) -> IndexSignature:
    """Replace the index atomically, keeping the previous one as the backup (unless it is broken).

    Without `access` it has that of the previous one, or what is usual in the folder.

    Raises:
        OSError: it cannot be written; the old index is untouched.
    """
    backup = backup_path(path) if keep_backup else None
    written = write_atomic(path, chunks, backup=backup, access=access)
    status = path.stat()  # not of the open file: the rename changed its ctime
    is_ours = (status.st_ino, status.st_size, status.st_mtime_ns) == (
        written.st_ino,
        written.st_size,
        written.st_mtime_ns,
    )
    return IndexSignature.of(status if is_ours else written)  # someone was quicker: read again next time


def write_index_data(path: Path, data: Mapping[str, Any]) -> None:
    """Write an index given as the plain dict of its format.

    Raises:
        OSError: it cannot be written; the old index is untouched.
        TypeError: a value is none of JSON's; likewise.
    """
    models = data.get("models", {})
    lines = [f"{_encode(model_id)}: {_encode(values)}" for model_id, values in models.items()]
    version = _encode(data.get("version", 1))
    extras = "".join(
        f"{_encode(key)}: {_encode(value)},\n" for key, value in data.items() if key not in ("version", "models")
    )
    text = f'{{\n"version": {version},\n{extras}"models": {{\n' + ",\n".join(lines) + "\n}\n}\n"
    write_index(path, iter((text.encode(),)))
