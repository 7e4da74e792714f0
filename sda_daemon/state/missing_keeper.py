"""The keeper that stands in while a models folder is missing.

Apart from what finds that out, so that commands which only look need not load the watching of folders.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from sda_daemon import events
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.keeper import Keeper
from sda_daemon.state.missing_library import STAND_IN_NAME, MissingLibrary, why_bare
from sda_daemon.watching.hints import Hint


@contextlib.contextmanager
def stand_in_for(missing: MissingLibrary) -> Iterator[ModelLibrary]:
    """Make an empty library in the state folder that stands in for a missing one; it is removed in the end."""
    folder = missing.state_dir / STAND_IN_NAME
    try:
        yield ModelLibrary(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class MissingLibraryKeeper(Keeper):
    """Stands in for the keeper of a folder that was lost before the daemon began, until it is back.

    Args:
        stand_in: an empty library, which nothing is put into.
        enqueue: takes hints for the loop.
        interval_s: see Keeper.
        missing: what is known of that folder.
    """

    def __init__(
        self, stand_in: ModelLibrary, enqueue: Callable[[Hint], None], interval_s: float, missing: MissingLibrary
    ) -> None:
        super().__init__(stand_in, enqueue, interval_s)
        self._missing = missing

    def start(self, now: float, *, live: bool) -> None:
        """Say what is lost; there is nothing to watch."""
        self._lose(str(self._missing))

    def next_moment(self) -> float:
        """Return when `poll` has something to do: never."""
        return math.inf

    def poll(self, now: float) -> None:
        """Leave the stand-in alone."""

    def supervise(self, now: float) -> bool:
        """Have everything begun anew when the folder is back."""
        finding = why_bare(self.models_dir, self._missing.state_dir)
        if finding:
            self.problem = str(replace(self._missing, finding=finding))
            return False
        events.LIBRARY_FOLDER_BACK(path=str(self.models_dir))
        return True

    @property
    def models_dir(self) -> Path:
        """The folder that is lost, not the stand-in's."""
        return self._missing.models_dir
