"""What the daemon remembers of every checkpoint: an SQLite file in the state folder.

It is a memory, not the truth. Without it every checkpoint is looked at again, and those whose model is in
the library already are recognised by their weights.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sda_daemon.errors import LedgerError
from sda_daemon.os_errors import describe
from sda_daemon.signature import FileSignature
from sda_daemon.small_files import check_regular
from sda_daemon.state.policy import LedgerRow, Status
from sda_daemon.wording import LONGEST_VALUE, shortened

LEDGER_FILE_NAME = "ledger.sqlite3"
_ENDINGS = ("", "-journal", "-wal", "-shm")
"""Of the files that SQLite opens: in the place of one of them a pipe would be waited for without an end."""
_SCHEMA_VERSION = 1
_REBUILT = "rebuilt"
RETRY_KIND = "retry"
"""Kind of a failure that someone wants tried again, or that was cut off by a stop."""
SUPERSEDED_KIND = "superseded"
"""Kind of a checkpoint that was converted, and whose model gave way to a better one."""
SLIDERS_KIND = "sliders"
"""Kind of a checkpoint that was converted and has sliders: it may go only where a model has them, too."""
INTERRUPTED_KIND = "interrupted"
"""Kind of a failure that took the daemon with it, or was taken by it."""
_COLUMNS = (
    "path, root, size_bytes, mtime_ns, inode, status, attempts, kind, reason, model_id, weights_digest, "
    "template_digest, next_try_at, updated_at"
)
_STATUSES = frozenset(Status)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS checkpoints (
    path TEXT PRIMARY KEY,
    root TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    kind TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    model_id TEXT NOT NULL DEFAULT '',
    weights_digest TEXT NOT NULL DEFAULT '',
    template_digest TEXT NOT NULL DEFAULT '',
    next_try_at REAL NOT NULL DEFAULT 0,
    updated_at REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS models (
    model_id TEXT PRIMARY KEY,
    weights_digest TEXT NOT NULL,
    source_path TEXT NOT NULL,
    root TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS report (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kept_sources (
    path TEXT PRIMARY KEY,
    root TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    reason TEXT NOT NULL,
    since REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_digest ON models (weights_digest);
CREATE INDEX IF NOT EXISTS by_source ON models (source_path);
CREATE INDEX IF NOT EXISTS by_root ON checkpoints (root);
CREATE INDEX IF NOT EXISTS by_status ON checkpoints (status);
"""


@dataclass(frozen=True, slots=True)
class MadeModel:
    """A model that the daemon made: what of, and where that was."""

    model_id: str
    weights_digest: str
    source_path: str
    root: str


@dataclass(frozen=True, slots=True)
class KeptSource:
    """A checkpoint that could not be deleted or moved: why, and since when (UTC seconds)."""

    path: str
    root: str
    signature: FileSignature
    reason: str
    since: float


class _Database(sqlite3.Connection):
    """A connection that reads damaged texts, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.text_factory = _decoded


class Ledger:
    """The daemon's memory. Each object is used by one thread; several processes may have one.

    Args:
        state_dir: folder of the database; made if it is not there.
        owned: whether this is the daemon, which alone makes, clears and replaces the file.

    Attributes:
        is_new: whether it has yet to be filled from the models' provenance; see `mark_rebuilt`.

    Raises:
        LedgerError: it cannot be opened.
    """

    def __init__(self, state_dir: Path, *, owned: bool = True) -> None:
        self.path = state_dir / LEDGER_FILE_NAME
        self._owned = owned
        try:
            if owned:
                state_dir.mkdir(parents=True, exist_ok=True)
            for ending in _ENDINGS:
                check_regular(state_dir / f"{LEDGER_FILE_NAME}{ending}")
            self._db = self._open()
            self.is_new = _REBUILT not in self.reported()
        except (OSError, sqlite3.Error, ValueError) as error:
            hint = "Check state_dir, its owner and permissions, and what else lies in its place"
            why = describe(error) if isinstance(error, OSError) else error
            raise LedgerError(f"the ledger {self.path} cannot be opened: {why}", hint) from error

    def mark_rebuilt(self) -> None:
        """Remember that all that the models say of their origin is in the ledger."""
        self.report({_REBUILT: True})
        self.is_new = False

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) or not self._owned:
                raise
            # Broken: it is only a memory, so a new one is begun and the old one kept for a look.
            self.path.replace(self.path.with_name(f"{LEDGER_FILE_NAME}.broken-{time.time_ns()}"))
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=10.0, isolation_level=None, factory=_Database)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            if database.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA_VERSION:
                if not self._owned:
                    raise sqlite3.DatabaseError("it belongs to another version of sda-daemon")
                tables = ("checkpoints", "models", "report", "kept_sources")
                drop = " ".join(f"DROP TABLE IF EXISTS {table};" for table in tables)
                database.executescript(f"{drop} {_SCHEMA} PRAGMA user_version={_SCHEMA_VERSION};")
            elif self._owned:
                database.executescript(_SCHEMA)  # tables that came after its version
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def get(self, path: str) -> LedgerRow | None:
        """Return what is remembered of a path."""
        found = self._db.execute(f"SELECT {_COLUMNS} FROM checkpoints WHERE path = ?", (_stored(path),)).fetchone()  # noqa: S608
        return None if found is None else _row(found)

    def contents_of_root(self, root: str) -> dict[str, tuple[int, int, int] | None]:
        """Return every path that is remembered of a watched folder.

        The value is size, modification time and inode of what was converted there, None where it was not.
        Plain tuples, because a rescan asks for a hundred thousand of them.
        """
        found = self._db.execute(
            "SELECT path, size_bytes, mtime_ns, inode, status IN (?, ?) FROM checkpoints WHERE root = ?",
            (Status.DONE, Status.DUPLICATE, _stored(root)),
        )
        return {
            _text(path): (size, mtime, inode) if done else None
            for path, size, mtime, inode, done in found
            if isinstance(path, str)
        }

    def of_status(self, *statuses: Status) -> Iterator[LedgerRow]:
        """Yield all rows with one of these statuses, the newest first."""
        marks = ", ".join("?" * len(statuses))
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM checkpoints WHERE status IN ({marks}) ORDER BY updated_at DESC",  # noqa: S608
            statuses,
        )
        yield from (row for values in found if (row := _row(values)) is not None)

    def put(self, rows: Iterable[LedgerRow]) -> None:
        """Remember rows, replacing what was remembered of their paths; all of them or none."""
        marks = ", ".join("?" * len(_COLUMNS.split(",")))
        now = time.time()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                f"INSERT OR REPLACE INTO checkpoints ({_COLUMNS}) VALUES ({marks})",  # noqa: S608
                [_values(row, now) for row in rows],
            )

    def remember_models(self, models: Iterable[MadeModel]) -> None:
        """Remember models that the daemon made, replacing what was remembered of their ids."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)",
                [
                    (_stored(m.model_id), _stored(m.weights_digest), _stored(m.source_path), _stored(m.root))
                    for m in models
                ],
            )

    def mark_superseded(self, model_ids: Iterable[str]) -> None:
        """Remember that the models of these checkpoints gave way to better ones: they are done all the same."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE checkpoints SET kind = ? WHERE model_id = ?",
                [(SUPERSEDED_KIND, _stored(model_id)) for model_id in model_ids],
            )

    def has_superseded(self, folder: str) -> bool:
        """Tell whether a model of a checkpoint directly in a folder has given way before."""
        prefix = _stored(folder.rstrip("/") + "/")
        found = self._db.execute(
            "SELECT 1 FROM checkpoints WHERE kind = ? AND substr(path, 1, ?) = ? AND instr(substr(path, ?), '/') = 0 "
            "LIMIT 1",
            (SUPERSEDED_KIND, len(prefix), prefix, len(prefix) + 1),
        )
        return found.fetchone() is not None

    def rename_model(self, old_id: str, new_id: str) -> int:
        """Remember that what was converted into one model is another; return of how many checkpoints that is news."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            changed = self._db.execute(
                "UPDATE checkpoints SET model_id = ?, status = CASE status WHEN ? THEN ? ELSE status END "
                "WHERE model_id = ?",
                (new_id, Status.DONE, Status.DUPLICATE, old_id),
            )
            self._db.execute("DELETE FROM models WHERE model_id = ?", (old_id,))
        return changed.rowcount

    def forget_models(self, model_ids: Iterable[str]) -> None:
        """Forget models that are no more."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM models WHERE model_id = ?", [(_stored(m),) for m in model_ids])

    def made_model(self, model_id: str) -> MadeModel | None:
        """Return what is remembered of a model, None if the daemon did not make it."""
        found = self._db.execute("SELECT * FROM models WHERE model_id = ?", (_stored(model_id),)).fetchone()
        return None if found is None else _model(found)

    def models_below(self, folder: str) -> list[MadeModel]:
        """Return the models made of checkpoints directly in a folder."""
        prefix = _stored(folder.rstrip("/") + "/")
        found = self._db.execute(
            "SELECT * FROM models WHERE substr(source_path, 1, ?) = ? AND instr(substr(source_path, ?), '/') = 0",
            (len(prefix), prefix, len(prefix) + 1),
        )
        return [_model(values) for values in found]

    def made_models(self) -> list[MadeModel]:
        """Return all models that the daemon made."""
        return [_model(values) for values in self._db.execute("SELECT * FROM models")]

    def paths_of_model(self, model_id: str) -> list[tuple[str, str]]:
        """Return path and watched folder of the checkpoints that are known to be this model."""
        found = self._db.execute("SELECT path, root FROM checkpoints WHERE model_id = ?", (_stored(model_id),))
        return [(_text(path), _text(root)) for path, root in found]

    def keep_source(self, source: KeptSource) -> bool:
        """Remember that a checkpoint could not be deleted or moved; tell whether that is news of this content."""
        signature, path = source.signature, _stored(source.path)
        reason = source.reason.encode("utf-8", "backslashreplace").decode()
        columns = "size_bytes, mtime_ns, inode, reason, since"
        known = self._db.execute(f"SELECT {columns} FROM kept_sources WHERE path = ?", (path,)).fetchone()  # noqa: S608
        is_news = known is None or FileSignature(*known[:3]) != signature
        if is_news or known[3] != reason:
            since = source.since if is_news else known[4]
            values = (signature.size_bytes, signature.mtime_ns, signature.inode, reason, since)
            self._db.execute(
                f"INSERT OR REPLACE INTO kept_sources (path, root, {columns}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (path, _stored(source.root), *values),
            )
        return is_news

    def release_sources(self, paths: Iterable[str]) -> None:
        """Forget that checkpoints could not be deleted or moved."""
        self._db.executemany("DELETE FROM kept_sources WHERE path = ?", [(_stored(path),) for path in paths])

    def kept_sources(self) -> list[KeptSource]:
        """Return the checkpoints that could not be deleted or moved, by path."""
        try:
            found = self._db.execute(
                "SELECT path, root, size_bytes, mtime_ns, inode, reason, since FROM kept_sources ORDER BY path"
            ).fetchall()
        except sqlite3.OperationalError:
            return []  # of a daemon that does not know this table yet
        return [
            KeptSource(_text(path), _text(root), FileSignature(*values), reason, since)
            for path, root, *values, reason, since in found
        ]

    def report(self, values: Mapping[str, Any]) -> None:
        """Publish facts about the running daemon, for `status`."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO report VALUES (?, ?)",
                [(key, json.dumps(value)) for key, value in values.items()],
            )

    def reported(self) -> dict[str, Any]:
        """Return what the daemon last published about itself."""
        found: dict[str, Any] = {}
        for key, value in self._db.execute("SELECT key, value FROM report"):
            with contextlib.suppress(ValueError, TypeError):  # a damaged one is published again
                found[key] = json.loads(value)
        return found

    def counts_since(self, moment: float) -> dict[Status, int]:
        """Return how many checkpoints came to each status since a moment (UTC seconds)."""
        found = self._db.execute(
            "SELECT status, count(*) FROM checkpoints WHERE updated_at >= ? GROUP BY status", (moment,)
        )
        return {Status(status): count for status, count in found if status in _STATUSES}

    def reset_attempts(self, paths: Iterable[str] | None = None) -> list[str]:
        """Forget failures, so that the checkpoints are tried again; all of them without `paths`.

        Returns:
            The checkpoints that had failed.
        """
        rows = self.of_status(Status.FAILED, Status.REFUSED, Status.GIVEN_UP)
        failed = {row.path: row for row in rows if row.kind != RETRY_KIND}
        chosen = sorted(failed if paths is None else failed.keys() & set(paths))
        # Rows stay, because they know which model the path made before.
        self.put(replace(failed[path], status=Status.FAILED, attempts=0, kind=RETRY_KIND) for path in chosen)
        return chosen

    def forget(self, paths: Iterable[str]) -> None:
        """Forget paths."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM checkpoints WHERE path = ?", [(_stored(path),) for path in paths])

    def recover(self) -> int:
        """Mark attempts that ended with the daemon itself; return how many there were.

        They count: what takes the whole daemon down each time must be noticed.
        """
        changed = self._db.execute(
            "UPDATE checkpoints SET status = ?, kind = ?, reason = ?, next_try_at = 0 WHERE status = ?",
            (Status.FAILED, INTERRUPTED_KIND, "the daemon was killed during its conversion", Status.CONVERTING),
        )
        return changed.rowcount

    def take_back(self, paths: Iterable[str]) -> None:
        """Take back attempts that were cut off because the daemon was stopped: they do not count."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE checkpoints SET status = ?, kind = ?, attempts = MAX(attempts - 1, 0) "
                "WHERE path = ? AND status = ?",
                [(Status.FAILED, RETRY_KIND, _stored(path), Status.CONVERTING) for path in paths],
            )

    def forget_missing(self, paths: Iterable[str], before: float) -> None:
        """Forget checkpoints that are no more and have not been heard of since a moment (UTC seconds)."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "DELETE FROM checkpoints WHERE path = ? AND updated_at < ?",
                [(_stored(path), before) for path in paths],
            )


_ESCAPE = "\0"
"""Begins a stored text that is not UTF-8; no path contains it."""


def _stored(text: str) -> str:
    """Return a text as SQLite can store it: names on disk are bytes, which need not be UTF-8."""
    if not text.startswith(_ESCAPE):
        with contextlib.suppress(UnicodeEncodeError):
            text.encode()
            return text
        with contextlib.suppress(UnicodeEncodeError):
            return _ESCAPE + text.encode("utf-8", "surrogateescape").decode("latin-1")
    # With a surrogate that stands for no byte: no path is like that, but what is in a file may be.
    return _ESCAPE + _ESCAPE + text.encode("utf-8", "surrogatepass").decode("latin-1")


def _text(stored: str) -> str:
    if not stored.startswith(_ESCAPE):
        return stored
    if stored.startswith(_ESCAPE + _ESCAPE):
        with contextlib.suppress(UnicodeDecodeError):
            return stored[2:].encode("latin-1", "replace").decode("utf-8", "surrogatepass")
    return stored[1:].encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def _decoded(raw: bytes) -> str:
    """Decode a text of the database; bytes that something has damaged spoil their own row only."""
    return raw.decode("utf-8", "replace")


def _model(values: tuple[str, str, str, str]) -> MadeModel:
    model_id, digest, path, root = values
    return MadeModel(_text(model_id), _text(digest), _text(path), _text(root))


def _row(values: tuple[Any, ...]) -> LedgerRow | None:
    """Return a row; None for one that makes no sense: then the checkpoint is looked at again."""
    path, root, size, mtime, inode, status, attempts, kind, reason, model_id, digest, template, try_at, at = values
    texts = (path, root, kind, reason, model_id, digest, template)
    numbers = (size, mtime, inode, attempts)
    moments = (try_at, at)
    if (
        not all(isinstance(text, str) for text in texts)
        or not all(isinstance(number, int) for number in numbers)
        or not all(isinstance(moment, int | float) for moment in moments)
        or status not in _STATUSES
    ):
        return None
    return LedgerRow(
        path=_text(path),
        root=_text(root),
        signature=FileSignature(size, mtime, inode),
        status=Status(status),
        attempts=attempts,
        kind=kind,
        reason=reason,
        model_id=_text(model_id),
        weights_digest=_text(digest),
        template_digest=template,
        next_try_at=float(try_at),
        updated_at=float(at),
    )


def _values(row: LedgerRow, now: float) -> tuple[object, ...]:
    signature = row.signature
    return (
        _stored(row.path),
        _stored(row.root),
        signature.size_bytes,
        signature.mtime_ns,
        signature.inode,
        row.status,
        row.attempts,
        row.kind,
        shortened(row.reason.encode("utf-8", "backslashreplace").decode(), LONGEST_VALUE),
        _stored(row.model_id),
        _stored(row.weights_digest),
        row.template_digest,
        row.next_try_at,
        row.updated_at or now,
    )
