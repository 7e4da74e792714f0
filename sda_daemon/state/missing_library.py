"""Knows a models folder that was full when the daemon last ran and is bare now: not a new one, but one not mounted.

The ledger tells which folder it was filled for and how many models were in it. A daemon that finds that folder
bare puts nothing into it, because what it made would be hidden as soon as the disk is mounted over it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sda_daemon.errors import LedgerError, LibraryError
from sda_daemon.library.findings import MASS_REMOVAL_COUNT
from sda_daemon.library.index import INDEX_FILE_NAME, BrokenIndex, backup_path, read_index
from sda_daemon.models.formats import has_model_ending
from sda_daemon.state.ledger import LEDGER_FILE_NAME, Ledger
from sda_daemon.watching.reach import folder_identity

STAND_IN_NAME = "no_library"
"""Folder in the state folder with the empty library that is used in place of a lost one."""
_FILLED = "filled"


@dataclass(frozen=True, slots=True)
class MissingLibrary:
    """A models folder that is bare.

    Attributes:
        models_dir: the folder.
        state_dir: of the daemon that filled it.
        models: how many were in it.
        finding: what is to be seen of it now.
    """

    models_dir: Path
    state_dir: Path
    models: int
    finding: str

    def __str__(self) -> str:
        models = f"{self.models} model{'s' if self.models != 1 else ''}"
        return f"{self.finding}, but had {models} when the daemon last ran"


def filled(models_dir: Path, models: int) -> dict[str, Any]:
    """Return what to publish in the ledger of a folder that is there, so that it is known as missing later."""
    return {_FILLED: {"models_dir": os.path.realpath(models_dir), "models": models}}


def find_missing_library(
    models_dir: Path, state_dir: Path, at_least: int = MASS_REMOVAL_COUNT
) -> MissingLibrary | None:
    """Look whether a models folder is bare that was full when the daemon last ran; changes nothing.

    Args:
        models_dir: the folder of the config. Another than the one of the last run is new, not lost.
        state_dir: where the ledger is, if there is one.
        at_least: how many models must have been in it: fewer may well have been deleted by hand.
    """
    record = _record_of(_recall(state_dir), models_dir)
    models = record.get("models", 0)
    if not isinstance(models, int) or models < at_least:
        return None
    finding = why_bare(models_dir, state_dir)
    return MissingLibrary(models_dir, state_dir, models, finding) if finding else None


def why_bare(models_dir: Path, state_dir: Path) -> str:
    """Return why a folder may be one that is not mounted; empty if it is surely the one that the daemon filled."""
    try:
        device = models_dir.stat().st_dev
    except FileNotFoundError:
        return "it is not there"
    except OSError:
        return ""  # whoever makes or locks it says what is the matter
    real, state = os.path.realpath(state_dir), folder_identity(str(state_dir))
    if f"{real}/".startswith(f"{os.path.realpath(models_dir)}/") and state is not None and state[0] == device:
        return ""  # the ledger lies in it: it is mounted
    return "it is empty" if _is_bare(models_dir) else ""


def _is_bare(folder: Path) -> bool:
    """Tell whether there is no model and no sign of one; commands that look at a folder leave an empty index there."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    index = folder / INDEX_FILE_NAME
    return not any(map(has_model_ending, names)) and all(map(_has_no_entries, (index, backup_path(index))))


def _has_no_entries(index: Path) -> bool:
    try:
        content, _ = read_index(index)
    except FileNotFoundError:
        return True
    except (BrokenIndex, LibraryError, OSError):
        return False
    return not (content.entries or content.foreign)


def forget_missing_library(missing: MissingLibrary) -> None:
    """Tell the daemon, running or not, that the models were deleted on purpose: it may begin a new library.

    Raises:
        LedgerError: its ledger cannot be changed.
    """
    record = filled(missing.models_dir, 0)
    record[_FILLED]["is_forgotten"] = True
    with contextlib.closing(Ledger(missing.state_dir, owned=False)) as ledger:
        ledger.report(record)


def is_forgotten(ledger: Ledger, models_dir: Path) -> bool:
    """Tell whether someone has said that the models of a lost folder were deleted on purpose."""
    return bool(_record_of(ledger.reported(), models_dir).get("is_forgotten"))


def _recall(state_dir: Path) -> Mapping[str, Any]:
    try:
        if not (state_dir / LEDGER_FILE_NAME).exists():
            return {}
        with contextlib.closing(Ledger(state_dir, owned=False)) as ledger:
            return ledger.reported()
    except (LedgerError, OSError):
        return {}  # a ledger that cannot be read remembers nothing; whoever takes it says so


def _record_of(reported: Mapping[str, Any], models_dir: Path) -> Mapping[str, Any]:
    record = reported.get(_FILLED)
    is_of_it = isinstance(record, dict) and record.get("models_dir") == os.path.realpath(models_dir)
    return record if isinstance(record, dict) and is_of_it else {}
