"""What may still be done for one file: spent wherever little in a file can ask for much.

A long row can be handed to many calls, one array be named in many places, one name be put together of many: each is
small in a file and large when it is made. Whoever makes such a thing spends what it costs; what a file may cost grows
with its size.
"""

from __future__ import annotations

import threading

from sda_daemon.torchfile.faults import Oversized

FREE_UNITS = 20_000_000
"""For a file of any size. A unit is a byte that is kept, or ten nanoseconds of an ordinary machine's time."""
CLASS_UNITS = 3_500
ODD_KEY_UNITS = 1_500
"""A key of or with numbers: thousands can be chosen so that each takes longer to find a place for."""
_KEY_UNITS = 50
_SMALL = range(2**16)
"""Numbers of which there are too few for that: steps, epochs, indexes."""
_UNCHOSEN = frozenset({bytes, bool, type(None)})
"""Whose hashes nobody can choose."""


class _Allowance(threading.local):
    left: int = FREE_UNITS


_allowance = _Allowance()


def begin_file(size_bytes: int) -> None:
    """Begin with another file, or another pickle of it; what was left of the one before is forgotten."""
    _allowance.left = FREE_UNITS + size_bytes


def spend(units: int) -> None:
    """Spend units of what the file at hand may cost.

    Raises:
        Oversized: there are not so many left.
    """
    _allowance.left -= units
    if _allowance.left < 0:
        raise Oversized("what it holds would take many times as much time or memory as its size is worth")


def spend_for_key(key: object) -> None:
    """Spend what it may cost to find a place for a key.

    Texts cost nothing: nobody can choose their hashes.

    Raises:
        Oversized: see `spend`.
    """
    kind = key.__class__
    if kind is not str:
        spend(_KEY_UNITS if kind in _UNCHOSEN or (kind is int and key in _SMALL) else ODD_KEY_UNITS)
