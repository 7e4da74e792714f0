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
KEY_UNITS = 50
"""A key that is no text: nobody can choose where it comes to lie, see `stand_ins.as_key`."""


class _Allowance(threading.local):
    given: int = FREE_UNITS
    left: int = FREE_UNITS


_allowance = _Allowance()


def begin_file(size_bytes: int) -> None:
    """Begin with another file, or another pickle of it; what was left of the one before is forgotten."""
    _allowance.given = _allowance.left = FREE_UNITS + size_bytes


def spend(units: int) -> None:
    """Spend units of what the file at hand may cost.

    Raises:
        Oversized: there are not so many left.
    """
    _allowance.left -= units
    if _allowance.left < 0:
        given = _allowance.given
        raise Oversized(
            f"to put together what it holds takes more than {given / 1e8:.1f} s or {given / 1e6:.0f} MB, "
            "the most for a file of its size"
        )
