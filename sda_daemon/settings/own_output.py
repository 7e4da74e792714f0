"""Complains of configs by which the daemon would take in what it has put out itself. Pure but for `is_within`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from sda_daemon.files import TRASH_FOLDER
from sda_daemon.models.formats import ENDINGS
from sda_daemon.settings.document import Document
from sda_daemon.settings.structure import Where, dotted

_SETS = re.compile(r"\[[^\]]+\]?")
IsWithin = Callable[[str, str], bool]
"""Tells whether a path is a folder, or lies in it."""


def refuse_own_output(document: Document, is_within: IsWithin) -> None:
    """Complain of watched folders that are, or lie in, what the daemon writes into.

    Args:
        document: the config, its paths made absolute.
        is_within: tells whether the first path is the second or lies in it.
    """
    bad = {problem.key for problem in document.problems}
    watches = document.data.get("watch")
    found = [
        (index, watch)
        for index, watch in enumerate(watches if isinstance(watches, list) else [])
        if isinstance(watch, dict) and _text(watch, "path", ("watch", index), bad)
    ]
    for index, watch in found:
        move_to = _text(watch, "move_to", ("watch", index), bad)
        if move_to:
            _check_destination(document, index, move_to, found, is_within)
    models_dir = _text(document.data, "models_dir", (), bad)
    for index, watch in found if models_dir else []:
        if is_within(watch["path"], f"{models_dir}/{TRASH_FOLDER}"):
            message = f"{watch['path']!r} is the trash of models_dir, which is never looked into; watch another folder"
            document.complain(("watch", index, "path"), message)
        elif is_within(watch["path"], models_dir):
            _check_patterns(document, index, watch)


def _text(section: Mapping[str, Any], key: str, where: Where, bad: set[str]) -> str:
    """Return a path of the config; empty if there is none that can be used."""
    value = section.get(key)
    return value if isinstance(value, str) and dotted((*where, key)) not in bad else ""


def _check_destination(
    document: Document, index: int, move_to: str, watches: Sequence[tuple[int, Mapping[str, Any]]], is_within: IsWithin
) -> None:
    for other, watch in watches:
        path = watch["path"]
        if not is_within(path, move_to):
            continue
        is_same = is_within(move_to, path)
        if other == index:
            what = "is the watched folder itself" if is_same else f"lies above the watched folder {path!r}"
            message = (
                f"{move_to!r} {what}: what is moved there could be found and moved again; choose a folder beside the "
                f"watched one, or one inside it, such as '{path}/done'"
            )
            document.complain(("watch", index, "move_to"), message)
        else:
            what = "is" if is_same else "lies in"
            message = (
                f"{path!r} {what} the folder that watch[{index}] moves its checkpoints to, which is never looked into; "
                f"watch another folder, or give watch[{index}] another move_to"
            )
            document.complain(("watch", other, "path"), message)


def _check_patterns(document: Document, index: int, watch: Mapping[str, Any]) -> None:
    patterns, ignore = watch.get("patterns"), watch.get("ignore")
    texts = [pattern for pattern in patterns if isinstance(pattern, str)] if isinstance(patterns, list) else []
    ignored = [pattern for pattern in ignore if isinstance(pattern, str)] if isinstance(ignore, list) else []
    for pattern in texts:
        endings = [ending for ending in taken_endings(pattern) if not _all_ignored(ending, ignored)]
        if endings:
            message = (
                f"{pattern!r} also takes model files such as 'x{endings[0]}', and this folder is or lies in models_dir"
                '; give only the endings of checkpoints: patterns: ["*.pt", "*.pth", "*.ckpt"]'
            )
            document.complain(("watch", index, "patterns"), message)
            return


def taken_endings(pattern: str) -> list[str]:
    """Return the endings of model files that a glob takes with some name in front of them, which has no dot in it."""
    # The name can be anything else: so what the glob has before some place takes it, and the rest just the ending.
    beginnings = [_SETS.sub("", pattern[:index]) for index in range(len(pattern) + 1)]
    ends = [pattern[index:] for index, beginning in enumerate(beginnings) if "." not in beginning]
    return [ending for ending in ENDINGS if any(fnmatchcase(ending, end) for end in ends)]


def _all_ignored(ending: str, ignored: Sequence[str]) -> bool:
    """Tell whether the globs to ignore leave out every file of an ending, at any depth."""
    return any(all(fnmatchcase(f"{place}{ending}", pattern) for place in ("x", "y/x", "")) for pattern in ignored)
