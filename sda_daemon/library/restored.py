"""Which models a person has brought back from the trash: what removes models by itself must not take them again.

A small hidden file beside the index. It outlives the daemon's memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sda_daemon.files import write_atomic
from sda_daemon.small_files import read_small_file

RESTORED_FILE_NAME = ".model_library.restored.json"
_VERSION = 1
_MAX_BYTES = 2**24


def restored_ids(models_dir: Path) -> set[str]:
    """Return the ids of the models that were restored; none where there is no such file, or none that can be read."""
    try:
        content = json.loads(read_small_file(models_dir / RESTORED_FILE_NAME, _MAX_BYTES))
        return {str(model_id) for model_id in content["models"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def remember_restored(models_dir: Path, model_ids: Iterable[str]) -> None:
    """Remember that models were restored. Call it while the library is locked, or just after.

    Raises:
        OSError: it cannot be written.
    """
    known = restored_ids(models_dir)
    if not known.issuperset(ids := set(model_ids)):
        content = {"version": _VERSION, "models": sorted(known | ids)}
        write_atomic(models_dir / RESTORED_FILE_NAME, [json.dumps(content, indent=1).encode()])
