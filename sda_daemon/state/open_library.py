"""One library in use by the daemon: its lock, its work folder and its keeper, taken and let go together."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from sda_daemon.files import close_work_folder, open_work_folder
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.keeper import Keeper
from sda_daemon.state.locks import INSTANCE_LOCK_NAME, instance_lock, make_folder
from sda_daemon.state.missing_library import STAND_IN_NAME, MissingLibrary, MissingLibraryKeeper
from sda_daemon.watching.hints import Hint


class OpenLibrary:
    """A library that models are put into.

    Args:
        models_dir: its folder; made if it is not there.
        enqueue: takes hints for the loop.
        interval_s: how often the folder is looked at without any sign of a change, in seconds.
        live: whether changes of the folder are watched for.
        held: folders whose lock this daemon holds already.
        on_locked: called when the folder is locked, before anything in it is changed.
        loss: what has been lost, if the folder is taken to be lost: then it is neither made nor touched, and an
            empty library in the state folder stands in for it.

    Raises:
        SdaError: the folder cannot be made, locked or read.
        OSError: likewise. Nothing stays taken.
    """

    def __init__(
        self,
        models_dir: Path,
        enqueue: Callable[[Hint], None],
        interval_s: float,
        *,
        live: bool,
        held: Collection[Path] = (),
        on_locked: Callable[[], None] = lambda: None,
        loss: MissingLibrary | None = None,
    ) -> None:
        self.models_dir = models_dir
        with contextlib.ExitStack() as stack:
            if loss is None:
                make_folder(models_dir, "models_dir")
                if models_dir.resolve() not in held:
                    stack.enter_context(instance_lock(models_dir))
                self.library = ModelLibrary(models_dir)
                on_locked()
                self.keeper = Keeper(self.library, enqueue, interval_s)
            else:
                on_locked()
                stand_in = loss.state_dir / STAND_IN_NAME
                stack.callback(shutil.rmtree, stand_in, ignore_errors=True)
                self.library = ModelLibrary(stand_in)
                self.keeper = MissingLibraryKeeper(self.library, enqueue, interval_s, loss)
            stack.callback(self._keep_weights)
            stack.callback(self.keeper.stop)
            self.keeper.start(live=live)
            self.work_dir, descriptor = open_work_folder(self.library.models_dir)
            stack.callback(close_work_folder, self.work_dir, descriptor)
            self._stack = stack.pop_all()

    def is_whole(self) -> bool:
        """Tell whether lock file and work folder are still there: a restored backup may have swept them away."""
        return self.work_dir.is_dir() and (self.library.models_dir / INSTANCE_LOCK_NAME).exists()

    def _keep_weights(self) -> None:
        if not self.keeper.is_lost:
            self.library.weights.save()

    def close(self) -> None:
        """Let go of the library."""
        self._stack.close()
