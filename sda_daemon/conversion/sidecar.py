"""Reads the JSON that a trainer writes beside a checkpoint. What is wrong with it costs its facts, never the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sda_daemon.files import says_gone
from sda_daemon.intake.aside import sidecar_of
from sda_daemon.plain_json import read_json
from sda_daemon.small_files import is_deeper_than, read_small_file

MAX_SIDECAR_BYTES = 2**20
MAX_LEVELS = 100


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a sidecar says.

    Attributes:
        content: empty where there is none that can be used.
        ignored: (path, reason) if there is one that cannot.
    """

    content: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[tuple[str, str], ...] = ()


def read_sidecar(checkpoint: Path) -> Sidecar:
    """Return what lies beside a checkpoint."""
    path = sidecar_of(checkpoint)
    try:
        content = read_json(read_small_file(path, MAX_SIDECAR_BYTES))
    except OSError as error:
        is_none = says_gone(error) or isinstance(error, NotADirectoryError)
        return Sidecar() if is_none else _unusable(path, f"it cannot be used: {error.strerror}")
    except RecursionError:
        return _unusable(path, "it is nested too deeply")
    except ValueError as error:
        return _unusable(path, f"it is not JSON: {error}")
    if not isinstance(content, dict):
        return _unusable(path, "it must hold keys and values")
    if is_deeper_than(content, MAX_LEVELS):
        return _unusable(path, "it is nested too deeply")
    return Sidecar(content)


def _unusable(path: Path, reason: str) -> Sidecar:
    return Sidecar(ignored=((str(path), reason),))
