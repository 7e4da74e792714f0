"""Finds the model that a person means: by id, beginning of an id, file or name. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sda_daemon.errors import AmbiguousModelError, UnknownModelError
from sda_daemon.library.entry import ModelEntry
from sda_daemon.models.formats import ENDINGS, has_model_ending
from sda_daemon.wording import LONGEST_QUOTE, clean, listed, quoted

SHORT_ID = 8
_MOST_CANDIDATES = 10
_LONGEST_COMPARED = 500


def find_entry(entries: Sequence[ModelEntry], text: str, models_dir: Path | None = None) -> ModelEntry:
    """Return the one entry that `text` names.

    A whole id goes first, then a file, an exact name, a name in other case, the beginning of an id.

    Args:
        entries: what to choose from.
        text: what a person typed.
        models_dir: the library's folder; a path into another folder names no model of it.

    Raises:
        UnknownModelError: nothing fits; near names are suggested.
        AmbiguousModelError: several fit; they are listed with their ids.
    """
    wanted = text.strip()
    for fits in _ways(wanted, models_dir):
        found = [entry for entry in entries if wanted and fits(entry)]
        if len(found) == 1:
            return found[0]
        if found:
            raise AmbiguousModelError(_candidates(wanted, found), "Name one by its id")
    names = {entry.name.casefold(): entry.name for entry in entries if entry.name}
    folded = wanted.casefold()
    near = [name for name in names if folded and folded in name][:3] or _near(folded, names)
    hint = "Did you mean " + " or ".join(quoted(names[name]) for name in near) + "?" if near else ""
    raise UnknownModelError(f"there is no model {quoted(text)}", hint or "See: sda-daemon models list")


def _near(wanted: str, names: Iterable[str]) -> list[str]:
    """Return names that differ in a few characters; comparing very long ones would take for ever."""
    return difflib.get_close_matches(wanted, [name for name in names if len(name) <= _LONGEST_COMPARED], n=3)


def _ways(wanted: str, models_dir: Path | None) -> Iterable[Callable[[ModelEntry], bool]]:
    yield lambda entry: entry.model_id == wanted
    files = _file_names(wanted, models_dir)
    yield lambda entry: entry.file_path in files
    yield lambda entry: entry.name == wanted
    folded = wanted.casefold()
    yield lambda entry: (entry.name or "").casefold() == folded
    yield lambda entry: entry.model_id.startswith(wanted.lower())


def _file_names(wanted: str, models_dir: Path | None) -> frozenset[str]:
    """Return the bare file names that a text may mean, none if it is a path that leads elsewhere."""
    path = Path(wanted)
    if "/" in wanted:
        if models_dir is None or path.parent.absolute().resolve() != models_dir.absolute().resolve():
            return frozenset()
        return frozenset({path.name})
    return frozenset({wanted}) if has_model_ending(wanted) else frozenset(wanted + ending for ending in ENDINGS)


def _candidates(wanted: str, found: Sequence[ModelEntry]) -> str:
    lines = [
        f"  {clean(entry.model_id, LONGEST_QUOTE)}  {clean(entry.name or '-', LONGEST_QUOTE)}"
        f"  ({clean(entry.file_path, LONGEST_QUOTE)})"
        for entry in found
    ]
    how = "sda-daemon models list --format id,name,file"
    return "\n".join([f"{quoted(wanted)} fits {len(found)} models:", *listed(lines, how, _MOST_CANDIDATES)])


def short_ids(entries: Iterable[ModelEntry]) -> dict[str, str]:
    """Return for each id its shortest beginning, of at least eight characters, that no other id has."""
    ids = sorted({entry.model_id for entry in entries})
    short: dict[str, str] = {}
    for index, model_id in enumerate(ids):
        neighbours = ids[max(0, index - 1) : index] + ids[index + 1 : index + 2]
        shared = max((_common(model_id, other) for other in neighbours), default=0)
        short[model_id] = model_id[: max(SHORT_ID, shared + 1)]
    return short


def _common(left: str, right: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
