"""One library in use by the daemon: its lock, its work folder and its keeper, taken and let go together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from sda_daemon.files import close_work_folder, open_work_folder
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.keeper import Keeper
from sda_daemon.state.locks import INSTANCE_LOCK_NAME, instance_lock, make_folder
from sda_daemon.state.missing_keeper import MissingLibraryKeeper, stand_in_for
from sda_daemon.state.missing_library import MissingLibrary
from sda_daemon.watching.hints import Hint


@contextlib.contextmanager
def locked_library(
    models_dir: Path, missing: MissingLibrary | None = None, held: Collection[Path] = ()
) -> Iterator[ModelLibrary]:
    """Lock a models folder and open the library in it; nothing but its index is touched.

    Args:
        models_dir: the folder; made if it is not there.
        missing: what is missing, if the folder is taken to be one that is not mounted: then it is neither made nor
            locked, and an empty library in the state folder stands in for it.
        held: folders whose lock this daemon holds already.

    Raises:
        SdaError: the folder cannot be made, locked or read.
    """
    with contextlib.ExitStack() as stack:
        if missing is not None:
            yield stack.enter_context(stand_in_for(missing))
            return
        make_folder(models_dir, "models_dir")
        if models_dir.resolve() not in held:
            stack.enter_context(instance_lock(models_dir))
        yield ModelLibrary(models_dir)


class OpenLibrary:
    """A library that models are put into, with its keeper and its work folder.

    Args:
        lock: holds the lock of the folder; see `locked_library`. It is let go with the rest.
        library: the library that is locked.
        enqueue: takes hints for the loop; called from other threads.
        interval_s: how often the folder is looked at without any sign of a change, in seconds.
        now: monotonic seconds.
        live: whether changes of the folder are watched for.
        missing: see `locked_library`.

    Raises:
        SdaError, OSError: the folder cannot be read or written. Nothing stays taken.
    """

    def __init__(
        self,
        lock: contextlib.ExitStack,
        library: ModelLibrary,
        enqueue: Callable[[Hint], None],
        interval_s: float,
        now: float,
        *,
        live: bool,
        missing: MissingLibrary | None = None,
    ) -> None:
        self.library = library
        self.models_dir = library.models_dir if missing is None else missing.models_dir
        with lock.pop_all() as stack:
            if missing is None:
                self.keeper = Keeper(library, enqueue, interval_s)
            else:
                self.keeper = MissingLibraryKeeper(library, enqueue, interval_s, missing)
            stack.callback(self._keep_weights)
            stack.callback(self.keeper.stop)
            self.keeper.start(now, live=live)
            self.work_dir, descriptor = open_work_folder(library.models_dir)
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
