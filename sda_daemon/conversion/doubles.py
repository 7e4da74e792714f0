"""Sees to it that the weights of one model stand in the library once, also where another program has saved them.

The application's own model stays: its id is in presets and history. The daemon's goes to the trash, unless a person has
made something of it. To know which models are the same, each file is read once, by a worker that has nothing better to
do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sda_daemon import events
from sda_daemon.conversion.digests import FILES_AT_ONCE, NO_CONTENT, copy_sliders, read_weights
from sda_daemon.conversion.job import Sliders
from sda_daemon.conversion.pool import ConversionPool, TaskPool
from sda_daemon.conversion.publish import give_sliders
from sda_daemon.errors import SdaError
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.in_use import InUse
from sda_daemon.library.trash import discard
from sda_daemon.library.weights import Weights, brings_sliders, find_twin
from sda_daemon.models.digest import model_id_of
from sda_daemon.os_errors import with_sandbox_hint
from sda_daemon.state.ledger import Ledger
from sda_daemon.state.open_library import OpenLibrary

MOST_AT_ONCE = 2000
"""So many files a run with `--once` reads at most; a daemon has time."""
PAUSE_S = 30.0
"""How long it is waited after a worker could not be had, in seconds."""
RESTORE_HINT = "to have it beside the other one all the same: sda-daemon models restore"


@dataclass(frozen=True, slots=True)
class WeightsRead:
    """A worker has read the weights of model files, of some or all that it was asked for; or it failed."""

    token: object
    found: list[Weights] | None
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class SlidersCopied:
    """A worker has written a copy of a model with sliders, or says why it could not; or it failed."""

    token: object
    found: Sliders | str | None
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class _Pair:
    """The daemon's model and the one that another program has saved of the same weights."""

    own: ModelEntry
    twin: ModelEntry


WeightsNews = WeightsRead | SlidersCopied


class Doubles:
    """Looks for models of the same weights, one job after another, while nothing is to be converted.

    Args:
        ledger: remembers which checkpoint is which model.
        enqueue: takes messages for the loop; called from other threads.
        once: whether all is to be known before anything is converted, and nothing is tried again.
    """

    def __init__(self, ledger: Ledger, enqueue: Callable[[WeightsNews], None], *, once: bool = False) -> None:
        self._ledger = ledger
        self._enqueue = enqueue
        self._once = once
        self._left = MOST_AT_ONCE
        self._library: ModelLibrary | None = None
        self._looks = -1
        self._waiting: deque[str] = deque()
        self._alone: set[str] = set()  # of those that wait, the ones that a worker may have died of
        self._job: object = None
        self._pool: object = None
        self._batch: list[str] = []
        self._pair: _Pair | None = None
        self._is_due = False
        self._pause_until = 0.0
        self._told: set[tuple[str, str, str]] = set()
        self._began = 0.0
        self._read = self._unreadable = 0
        self._count = 0

    @property
    def is_busy(self) -> bool:
        """Whether a worker is at it."""
        return self._job is not None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing left to find out or to do."""
        return self._job is None and not self._waiting and not self._is_due

    def poll(self, now: float, opened: OpenLibrary, pool: ConversionPool, in_use: InUse, *, is_free: bool) -> None:
        """Take note of what is new in the library, do what can be done, and begin the next job.

        Args:
            now: monotonic seconds.
            opened: the library.
            pool: its workers read files.
            in_use: tells what people have made with a model.
            is_free: whether there is nothing to convert.
        """
        self._look(opened)
        if self._job is not None and pool is not self._pool:  # its workers go with the old config
            self._job = None
            self._waiting.extendleft(reversed(self._batch))
            self._batch = []
        if opened.keeper.is_lost or self._job is not None or now < self._pause_until:
            return
        if not isinstance(pool, TaskPool):
            self._waiting.clear()
        if self._is_due:
            self._is_due = False
            self._resolve(opened.library, in_use)
        if self._job is None and is_free and isinstance(pool, TaskPool):
            self._pool = pool
            self._begin(opened, pool, now)

    def _look(self, opened: OpenLibrary) -> None:
        if opened.library is not self._library:
            self._library, self._looks, self._pair, self._job = opened.library, -1, None, None
        if opened.keeper.looks != self._looks:
            self._looks = opened.keeper.looks
            self._waiting = deque(opened.library.weights.unknown(opened.library.contents(), opened.library.entries()))
            self._is_due = True

    # --- jobs ---------------------------------------------------------------------------------------

    def _begin(self, opened: OpenLibrary, pool: TaskPool, now: float) -> None:
        folder = str(opened.library.models_dir)
        if self._pair is not None:
            self._count += 1
            temporary = opened.work_dir / f"{self._count}.sliders"
            pair = self._pair
            self._start(
                pool.call(copy_sliders, folder, pair.own.file_path, pair.twin.file_path, str(temporary)), SlidersCopied
            )
            return
        if self._once and self._left <= 0:
            self._end_of_reading(now)
            self._waiting.clear()
        if not self._waiting:
            return
        if not self._read:
            self._began = now
        count = 1 if self._waiting[0] in self._alone else min(FILES_AT_ONCE, len(self._waiting))
        self._batch = [self._waiting.popleft() for _ in range(count)]
        self._start(pool.call(read_weights, folder, self._batch), WeightsRead)

    def _start(self, future: Future[Any], message: Callable[[object, Any, BaseException | None], WeightsNews]) -> None:
        token = self._job = object()

        def tell_loop(done: Future[Any]) -> None:
            try:
                self._enqueue(message(token, done.result(), None))
            except CancelledError as error:
                self._enqueue(message(token, None, error))
            except Exception as error:  # noqa: BLE001 - whatever the engine raises is the end of the job
                self._enqueue(message(token, None, error))

        future.add_done_callback(tell_loop)

    def take(self, message: WeightsNews, now: float) -> None:
        """Take what a worker has found out, or that it did not come to it."""
        if message.token is not self._job or self._library is None:
            return  # news of an earlier library
        self._job = None
        if isinstance(message.error, CancelledError):  # the workers were sent home
            self._waiting.extendleft(reversed(self._batch))
            self._batch = []
            if self._once:
                self._waiting.clear()
                self._pair = None
            else:
                self._pause_until = now + PAUSE_S
        elif isinstance(message, SlidersCopied):
            self._take_sliders(self._library, message)
        else:
            self._take_weights(self._library, message, now)

    def _take_weights(self, library: ModelLibrary, message: WeightsRead, now: float) -> None:
        batch, self._batch = self._batch, []
        if message.error is not None and len(batch) > 1:  # one of them was too much for it
            self._alone.update(batch)
            self._waiting.extendleft(reversed(batch))
            return
        found = message.found if message.found is not None else _failed(library, batch[0], message.error)
        self._waiting.extendleft(reversed(batch[len(found) :]))
        known = [item for item in found if item.signature != NO_CONTENT]
        library.weights.learn_all(known)
        for item in known:
            if item.reason:
                events.LIBRARY_WEIGHTS_UNKNOWN(file=item.file, reason=item.reason)
        self._read += len(found)
        self._left -= len(found)
        self._unreadable += sum(bool(item.reason) for item in known)
        self._is_due = self._is_due or any(item.is_others for item in known)
        if not self._waiting:
            self._end_of_reading(now)

    def _end_of_reading(self, now: float) -> None:
        if self._library is not None:
            self._library.weights.save()
        if self._read:
            events.LIBRARY_WEIGHTS_KNOWN(
                files=self._read,
                unreadable=self._unreadable,
                left=len(self._waiting),
                duration_s=round(now - self._began, 3),
            )
        self._read = self._unreadable = 0

    # --- what follows ---------------------------------------------------------------------------------

    def _resolve(self, library: ModelLibrary, in_use: InUse) -> None:
        """Let the daemon's models give way to those of other programs; what a crash left undone is done again."""
        try:
            library.refresh()
            going: list[_Pair] = []
            for digest in library.weights.of_others():
                own_id, twin = model_id_of(digest), find_twin(library, digest)
                if twin is None or not library.holds(twin.model_id):
                    continue
                own = library.get(own_id)
                if own is None:
                    self._ledger.rename_model(own_id, twin.model_id)
                elif own.file_path != twin.file_path and library.holds(own_id):
                    pair = _Pair(own, twin)
                    going += [pair] if self._may_go(library, pair, in_use) else []
            self._let_go(library, going)
            library.weights.save()
        except (SdaError, OSError) as error:  # it is done at the next look
            events.LIBRARY_REPAIR_FAILED(reason=with_sandbox_hint(error))

    def _may_go(self, library: ModelLibrary, pair: _Pair, in_use: InUse) -> bool:
        """Tell whether the daemon's model may go to the trash; if it has what the other one lacks, that comes first."""
        own, twin = pair.own, pair.twin
        if brings_sliders(own, twin):
            key = (own.model_id, twin.model_id, "sliders")
            if key not in self._told and self._pair is None:
                self._pair = pair
            return False
        reason = in_use.why(library, own)
        if not reason:
            return True
        key = (own.model_id, twin.model_id, reason)
        if key not in self._told:
            self._told.add(key)
            events.MODEL_STAYED(**_names(pair), reason=reason)
        return False

    def _let_go(self, library: ModelLibrary, going: list[_Pair]) -> None:
        """Index, then file, then ledger."""
        if not going:
            return
        discard(library, [pair.own for pair in going])
        for pair in going:
            self._ledger.rename_model(pair.own.model_id, pair.twin.model_id)
            events.MODEL_GAVE_WAY(**_names(pair), hint=RESTORE_HINT)

    def _take_sliders(self, library: ModelLibrary, message: SlidersCopied) -> None:
        pair, self._pair = self._pair, None
        self._is_due = True
        if pair is None:
            return
        names = {"model_id": pair.twin.model_id, "name": pair.twin.name, "file": pair.twin.file_path}
        reason = str(message.error or message.found)
        if isinstance(message.found, Sliders):
            try:
                better = give_sliders(library, pair.twin, message.found)
            except (SdaError, OSError) as error:
                Path(message.found.temporary).unlink(missing_ok=True)
                reason = with_sandbox_hint(error)
            else:
                if better is not None:
                    events.MODEL_GIVEN_SLIDERS(**names, sliders=better.n_active_components)
                return
        self._told.add((pair.own.model_id, pair.twin.model_id, "sliders"))
        events.MODEL_WITHOUT_SLIDERS(**names, reason=reason)


def _failed(library: ModelLibrary, file: str, error: BaseException | None) -> list[Weights]:
    """Return what is to be remembered of a file whose reader died."""
    signature = library.contents().get(file, NO_CONTENT)
    return [Weights(file, signature, reason=f"its reader died ({type(error).__name__})", is_lasting=False)]


def _names(pair: _Pair) -> dict[str, str]:
    own, twin = pair.own, pair.twin
    theirs = {"by": twin.name, "by_id": twin.model_id, "by_file": twin.file_path}
    return {"model_id": own.model_id, "name": own.name, "file": own.file_path, **theirs}
