"""Symbolic links to checkpoints: when one of the two moves, the link goes on leading to where it led.

A run folder often has a `best.pt` that is a link to another checkpoint beside it, and both are moved, in any order.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sda_daemon.intake.aside import link_target

PART_ENDING = ".sda-part"
"""Of what is not whole yet, in the folder that it is to lie in."""


def make_link(link: Path, folder: Path, target: Path) -> None:
    """Make a link that leads to where one leads that lay in a folder; relative, if that one was.

    Raises:
        FileExistsError: the name is taken.
        OSError: it cannot be made.
    """
    target.symlink_to(_way_to(link_target(link, folder), target.parent, is_absolute=link.readlink().is_absolute()))


def _way_to(goal: Path, folder: Path, *, is_absolute: bool) -> Path:
    """Return what a link in a folder has to say to lead to a goal."""
    if not is_absolute:
        here = os.path.realpath(folder)
        relative = Path(os.path.relpath(os.path.normpath(goal), here))
        if os.path.realpath(Path(here) / relative) == os.path.realpath(goal):
            return relative
    return goal


def links_to(place: Path, folders: Iterable[Path], also: Iterable[Path] = ()) -> list[Path]:
    """Return the links that lead to a path in one step, whatever is there now.

    Args:
        place: the path.
        folders: where links are looked for, not below them.
        also: further paths that may be such links.
    """
    goal = Path(os.path.realpath(place.parent)) / place.name
    found: dict[Path, None] = {}
    for link in (*(link for folder in folders for link in _links_in(folder)), *also):
        if leads_to(link, goal):
            found[link] = None
    return list(found)


def leads_to(link: Path, goal: Path) -> bool:
    """Tell whether a link leads to a path (its folder resolved) in one step."""
    try:
        led = link_target(link, link.parent)
    except (OSError, ValueError):
        return False
    return led.name == goal.name and Path(os.path.realpath(led.parent)) == goal.parent


def _links_in(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)


def lead(links: Iterable[Path], old: Path, new: Path, token: str) -> None:
    """Have links lead to a new place in place of an old one, relative if they were; all of them or none.

    Args:
        links: what was found to lead to the old place.
        old: the path that they lead to.
        new: the path that they are to lead to.
        token: what tells unfinished links of this move from those of others.

    Raises:
        OSError: one of them cannot be changed; all are as before.
    """
    goal = Path(os.path.realpath(old.parent)) / old.name
    with contextlib.ExitStack() as undo:
        for link in links:
            if not leads_to(link, goal):
                continue  # it has just been changed by someone else
            before = link.readlink()
            _replace(link, _way_to(new.absolute(), link.parent, is_absolute=before.is_absolute()), token)
            undo.callback(_replace, link, before, token)
        undo.pop_all()


def _replace(link: Path, says: Path, token: str) -> None:
    part = link.with_name(f".{token}.link{PART_ENDING}")
    part.symlink_to(says)
    try:
        part.replace(link)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
