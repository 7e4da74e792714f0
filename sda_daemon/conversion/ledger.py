"""What the daemon remembers of every checkpoint: an SQLite file in the state folder.

It is a memory, not the truth. Without it every checkpoint is looked at again, and those whose model is in
the library already are recognised by their weights.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from sda_daemon.conversion.policy import LedgerRow, Status
from sda_daemon.errors import SdaError
from sda_daemon.signature import FileSignature

LEDGER_FILE_NAME = "ledger.sqlite3"
_SCHEMA_VERSION = 1
_COLUMNS = (
    "path, root, size_bytes, mtime_ns, inode, status, attempts, kind, reason, model_id, weights_digest, "
    "template_digest, next_try_at, updated_at"
)
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
CREATE INDEX IF NOT EXISTS by_root ON checkpoints (root);
CREATE INDEX IF NOT EXISTS by_status ON checkpoints (status);
"""


class Ledger:
    """The daemon's memory. Used by one thread of one process at a time.

    Args:
        state_dir: folder of the database; made if it is not there.

    Raises:
        SdaError: it cannot be opened.

    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / LEDGER_FILE_NAME
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
        except (OSError, sqlite3.Error) as error:
            raise SdaError(f"the ledger {self.path} cannot be opened: {error}", "Check state_dir") from error

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            # Broken: it is only a memory, so a new one is begun and the old one kept for a look.
            self.path.replace(self.path.with_name(f"{LEDGER_FILE_NAME}.broken-{time.time_ns()}"))
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=10.0, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            if database.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA_VERSION:
                database.executescript(
                    f"DROP TABLE IF EXISTS checkpoints; {_SCHEMA} PRAGMA user_version={_SCHEMA_VERSION};"
                )
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def get(self, path: str) -> LedgerRow | None:
        """Return what is remembered of a path."""
        found = self._db.execute(f"SELECT {_COLUMNS} FROM checkpoints WHERE path = ?", (path,)).fetchone()  # noqa: S608
        return None if found is None else _row(found)

    def of_root(self, root: str) -> dict[str, LedgerRow]:
        """Return all that is remembered of a watched folder, by path."""
        found = self._db.execute(f"SELECT {_COLUMNS} FROM checkpoints WHERE root = ?", (root,))  # noqa: S608
        return {values[0]: _row(values) for values in found}

    def of_status(self, *statuses: Status) -> Iterator[LedgerRow]:
        """Yield all rows with one of these statuses, the newest first."""
        marks = ", ".join("?" * len(statuses))
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM checkpoints WHERE status IN ({marks}) ORDER BY updated_at DESC",  # noqa: S608
            statuses,
        )
        yield from (_row(values) for values in found)

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

    def forget(self, paths: Iterable[str]) -> None:
        """Forget paths."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM checkpoints WHERE path = ?", [(path,) for path in paths])

    def recover(self) -> int:
        """Take back attempts that a killed daemon had begun; return how many there were."""
        changed = self._db.execute(
            "UPDATE checkpoints SET status = ?, attempts = MAX(attempts - 1, 0), next_try_at = 0 WHERE status = ?",
            (Status.FAILED, Status.CONVERTING),
        )
        return changed.rowcount


def _row(values: tuple[str, str, int, int, int, str, int, str, str, str, str, str, float, float]) -> LedgerRow:
    path, root, size, mtime, inode, status, *rest = values
    return LedgerRow(path, root, FileSignature(size, mtime, inode), Status(status), *rest)  # type: ignore[arg-type]


def _values(row: LedgerRow, now: float) -> tuple[object, ...]:
    signature = row.signature
    return (
        row.path,
        row.root,
        signature.size_bytes,
        signature.mtime_ns,
        signature.inode,
        row.status,
        row.attempts,
        row.kind,
        row.reason,
        row.model_id,
        row.weights_digest,
        row.template_digest,
        row.next_try_at,
        row.updated_at or now,
    )
