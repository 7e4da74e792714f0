"""Fills a new ledger from what the models say of their origin, so that nothing has to be read again."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from sda_daemon import events
from sda_daemon.errors import ModelFileError
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry, is_bare_model_name
from sda_daemon.models.header import read_model_header
from sda_daemon.models.provenance import Provenance, root_digest
from sda_daemon.signature import signature_at
from sda_daemon.state.ledger import Ledger, MadeModel
from sda_daemon.state.policy import LedgerRow, Status


def rebuild_ledger(ledger: Ledger, library: ModelLibrary, roots: Iterable[str]) -> None:
    """Remember the daemon's own models, and those checkpoints that are still what they were made of.

    Args:
        ledger: a new one.
        library: the models, each with its provenance.
        roots: the watched folders, in which the checkpoints are looked for.
    """
    folders = list(roots)
    models: list[MadeModel] = []
    rows: list[LedgerRow] = []
    for entry in library.list_all():
        if not is_bare_model_name(entry.file_path):
            continue
        try:
            header = read_model_header(library.models_dir / entry.file_path)
        except (ModelFileError, OSError):
            continue
        if header.metadata.model_id != entry.model_id or not header.origin.made_by_daemon:
            continue  # a copy, or made by hand
        model, row = _recall(entry, header.origin, folders)
        models.append(model)
        rows += [row] if row is not None else []
    ledger.remember_models(models)
    ledger.put(rows)
    ledger.mark_rebuilt()
    if models:
        events.LEDGER_REBUILT(models=len(models), checkpoints=len(rows))


def _recall(entry: ModelEntry, origin: Provenance, roots: list[str]) -> tuple[MadeModel, LedgerRow | None]:
    """Find the checkpoint that a model was made of, in the folder that was watched then."""
    relative, digest = origin.source_path, origin.weights_digest
    root = next((root for root in roots if root_digest(root) == origin.source_root), "")
    if not root or not relative:
        return MadeModel(entry.model_id, digest, "", ""), None
    path = f"{root}/{relative}"
    model = MadeModel(entry.model_id, digest, path, root)
    signature = signature_at(path)
    same = (origin.source_size_bytes, origin.source_mtime_ns)
    if signature is None or (signature.size_bytes, signature.mtime_ns) != same:
        return model, None
    row = LedgerRow(path, root, signature, Status.DONE, 1, model_id=entry.model_id, weights_digest=digest)
    return model, replace(row, updated_at=_moment(entry.save_date))


def _moment(text: str | None) -> float:
    """Return an ISO 8601 date as UTC seconds, no later than now; 0 for none, and for what is none."""
    try:
        return min(datetime.fromisoformat(text).timestamp(), time.time()) if text else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0
