"""What follows a conversion: remembering what was made of what, pruning by `select`, clearing the sources.

Each step looks at what is, not at what has just happened, so that a crash between two of them is made up for by
doing the step again at the next start or rescan.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sda_daemon import events
from sda_daemon.conversion.clearing import (
    KILLED,
    Clearance,
    Clearing,
    SourceCleared,
    SourceNews,
    SourcePutBack,
    SourceStayed,
)
from sda_daemon.conversion.publish import Action, Published
from sda_daemon.conversion.publisher import Result
from sda_daemon.conversion.selection import superseded
from sda_daemon.conversion.work import RunContext
from sda_daemon.errors import ModelFileError, SdaError
from sda_daemon.intake.intake import Aside, Done
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.in_use import InUse
from sda_daemon.library.trash import discard
from sda_daemon.models.digest import model_id_of
from sda_daemon.models.header import read_model_details, read_model_header
from sda_daemon.os_errors import with_sandbox_hint
from sda_daemon.settings.run_config import RunConfig, relative_to
from sda_daemon.settings.schema import WatchSettings
from sda_daemon.signature import FileSignature, signature_at
from sda_daemon.state.ledger import SLIDERS_KIND, SUPERSEDED_KIND, KeptSource, Ledger, MadeModel
from sda_daemon.state.policy import LedgerRow, Status
from sda_daemon.watching.hints import FileSeen

MAX_NAMED = 20
"""So many of the models that go are named in one event."""
NO_SLIDERS = "it has sliders that no model of its weights in the library has"
"""Why a checkpoint stays whose weights are in the library."""
RESTORE_HINT = "bring them back with sda-daemon models restore; set select: all to keep all"


@dataclass(frozen=True, slots=True)
class Leaving:
    """The models of one folder that are not to stay.

    Attributes:
        folder: where the checkpoints are that they were made of.
        select: why: `best` or `latest`.
        models: those that go.
        winner: name of the one that stays.
        made: how many models were made in the folder.
        in_use: how many of the others stay because they are in use.
    """

    folder: str
    select: str
    models: list[ModelEntry]
    winner: str
    made: int
    in_use: int


def leaving(
    ledger: Ledger, library: ModelLibrary, folders: Mapping[str, WatchSettings], in_use: InUse
) -> Iterator[Leaving]:
    """Yield, for each folder of checkpoints, what `select` lets go; nothing is changed."""
    for folder, watch in folders.items():
        if watch.select == "all":
            continue
        library.refresh()  # what people have done meanwhile counts
        made = [library.get(model.model_id) for model in ledger.models_below(folder)]
        models = [entry for entry in made if entry is not None]
        beaten = superseded(watch.select, models)
        going = [entry for entry in beaten if not in_use.why(library, entry)]
        if going:
            winner = next((entry.name for entry in models if entry not in beaten), "")
            yield Leaving(folder, watch.select, going, winner, len(models), len(beaten) - len(going))


def folders_of(ledger: Ledger, watches: Mapping[str, WatchSettings]) -> dict[str, WatchSettings]:
    """Return every folder of checkpoints that models were made of, with the settings of its watched folder."""
    made = [model for model in ledger.made_models() if model.source_path and model.root in watches]
    return {str(Path(model.source_path).parent): watches[model.root] for model in made}


def _holders(row: LedgerRow) -> tuple[str, ...]:
    """Return the ids of the models of which one must have sliders before a checkpoint may go; none if it has none."""
    if row.kind != SLIDERS_KIND:
        return ()
    return (row.model_id, model_id_of(row.weights_digest)) if row.weights_digest else (row.model_id,)


def _has_sliders(library: ModelLibrary, model_ids: tuple[str, ...]) -> bool:
    found = (library.get(model_id) for model_id in model_ids)
    return not model_ids or any(_file_has_sliders(library, entry) for entry in found if entry)


def _file_has_sliders(library: ModelLibrary, entry: ModelEntry) -> bool:
    """Tell whether a model's file has sliders, whatever the index says of it."""
    try:
        return read_model_details(library.models_dir / entry.file_path).analysis is not None
    except (ModelFileError, OSError):
        return False


class Retention:
    """The steps after publishing.

    Args:
        ledger: remembers which models the daemon made, and of what.
        clearing: deletes and moves checkpoints.
    """

    def __init__(self, ledger: Ledger, clearing: Clearing) -> None:
        self._ledger = ledger
        self._clearing = clearing

    def configure(self, config: RunConfig) -> None:
        """Go by another config: what is to be deleted or moved by it is found again."""
        self._clearing.drop()
        self._release_unwanted(config)

    def remember(self, result: Result) -> None:
        """Remember the models that are the daemon's own: only these are ever pruned or replaced."""
        made = [
            MadeModel(one.entry.model_id, one.converted.weights_digest, item.work.path, item.work.root)
            for item, one in result.published
            if one.entry is not None and self._is_own(item.context.library, one)
        ]
        if made:
            self._ledger.remember_models(made)

    def _is_own(self, library: ModelLibrary, item: Published) -> bool:
        """Whether the model was made by this daemon of this very checkpoint, now or before a crash."""
        if item.action in (Action.ADDED, Action.REPLACED):
            return True
        assert item.entry is not None
        known = self._ledger.made_model(item.entry.model_id)
        if known is not None:
            return item.action is Action.UPDATED
        try:
            header = read_model_header(library.models_dir / item.entry.file_path)
        except (ModelFileError, OSError):
            return False
        job = item.converted.job
        relative = relative_to(job.watch_root, job.path)
        is_same = header.metadata.model_id == item.entry.model_id and header.origin.source_path == relative
        return bool(is_same and header.origin.made_by_daemon)

    def apply(self, result: Result, context: RunContext) -> None:
        """Do what follows from conversions that have ended, and that the ledger knows of.

        Models that are not to stay go to the trash, and then the checkpoints are deleted or moved.

        Args:
            result: what has become of them.
            context: what is in force now.
        """
        done = [(item, watch) for item, _ in result.published if (watch := item.watch) is not None]
        for library in {id(item.context.library): item.context.library for item, _ in done}.values():
            here = [(item, watch) for item, watch in done if item.context.library is library]
            self._prune(library, {str(Path(item.work.path).parent): watch for item, watch in here}, context.in_use)
        for item, watch in done:
            work = item.work
            self.clear_source(item.context.library, work.path, work.root, work.signature, watch)

    def catch_up(self, context: RunContext) -> None:
        """Prune what a killed daemon did not come to prune."""
        watches = {str(watch.path): watch for watch in context.config.settings.watch}
        self._prune(context.library, folders_of(self._ledger, watches), context.in_use)

    def _prune(self, library: ModelLibrary, folders: Mapping[str, WatchSettings], in_use: InUse) -> None:
        try:
            self.prune(library, folders, in_use)
        except (SdaError, OSError) as error:  # it is done by the next conversion of the folder, or at the next start
            events.LIBRARY_REPAIR_FAILED(reason=with_sandbox_hint(error))

    def look_after(self, done: Iterable[Done], asides: Iterable[Aside], context: RunContext) -> None:
        """Delete or move what was converted before and is still there, and put back what a crash has left aside.

        Args:
            done: checkpoints whose models are in the library.
            asides: files under private names.
            context: what is in force.
        """
        for item in done:
            watch = context.config.watch_for(item.root, item.path)
            if watch is not None:
                self.clear_source(context.library, item.path, item.root, item.signature, watch)
        for aside in asides:
            at = context.config.watch_at(aside.root)
            self._clearing.put_back(aside.path, aside.root, at.move_to if at is not None else None)

    def prune(self, library: ModelLibrary, folders: Mapping[str, WatchSettings], in_use: InUse) -> None:
        """Where only the best or the latest model of a folder is wanted, move the others into the trash.

        What is in use stays. The first time that this happens in a folder it is said aloud, before it is done.

        Args:
            library: the models.
            folders: folders of checkpoints, with the settings of their watched folder.
            in_use: tells what people have made with a model.

        Raises:
            LibraryError, OSError: the index or a file cannot be changed; it is done by the next call.
        """
        losers: dict[str, ModelEntry] = {}
        for found in leaving(self._ledger, library, folders, in_use):
            going = [entry for entry in found.models if not self._rehome(entry.model_id, found.folder)]
            if going and not self._ledger.has_superseded(found.folder):
                events.SELECT_BEGINS(
                    folder=found.folder,
                    select=found.select,
                    models=len(going),
                    names=[entry.name for entry in going[:MAX_NAMED]],
                    in_use=found.in_use,
                    hint=RESTORE_HINT,
                )
            for entry in going:
                losers[entry.model_id] = entry
                events.MODEL_SUPERSEDED(
                    model_id=entry.model_id,
                    name=entry.name,
                    file=entry.file_path,
                    by=found.winner,
                    select=found.select,
                )
        if losers:
            self._ledger.mark_superseded(losers)
            discard(library, list(losers.values()))
            self._ledger.forget_models(losers)

    def _rehome(self, model_id: str, folder: str) -> bool:
        """Leave a model to another folder that has the same checkpoint; tell whether there is one."""
        for path, root in self._ledger.paths_of_model(model_id):
            if str(Path(path).parent) != folder and signature_at(path) is not None:
                known = self._ledger.made_model(model_id)
                digest = known.weights_digest if known else ""
                self._ledger.remember_models([MadeModel(model_id, digest, path, root)])
                return True
        return False

    def clear_source(
        self, library: ModelLibrary, path: str, root: str, signature: FileSignature, watch: WatchSettings
    ) -> None:
        """Have a converted checkpoint deleted or moved, if that is wanted, it is the same, and its model is there.

        A checkpoint whose model gave way to a better one (`select`) is done too. One whose sliders are in no model of
        the library stays, and that is told once.
        """
        if watch.after == "keep" or signature_at(path) != signature:
            return
        row = self._ledger.get(path)
        if row is None or row.signature != signature or row.status not in (Status.DONE, Status.DUPLICATE):
            return
        model_id, is_superseded = row.model_id, row.kind == SUPERSEDED_KIND
        holders = _holders(row)

        def is_safe() -> bool:
            return is_superseded or (library.holds(model_id) and _has_sliders(library, holders))

        if is_safe():
            move_to = watch.move_to if watch.after == "move" else None
            self._clearing.add(Clearance(path, root, signature, move_to, is_safe))
        elif library.holds(model_id):
            self._keep(path, root, signature, NO_SLIDERS)

    # --- what became of it ------------------------------------------------------------------------

    def take(self, message: SourceNews, context: RunContext) -> list[FileSeen]:
        """Take note of what became of a checkpoint that was to be deleted or moved; return what to look at again."""
        self._clearing.done(message)
        match message:
            case SourceCleared():
                self._cleared(message)
            case SourceStayed():
                self._stayed(message)
                if message.back_as:
                    return [FileSeen(message.root, message.back_as, False)]
            case SourcePutBack(_, root, path):
                self._put_back(message)
                signature = signature_at(path) if path else None
                if signature is not None:
                    self.look_after([Done(path, root, signature)], [], context)
                    return [FileSeen(root, path, False)]
        return []

    def _cleared(self, message: SourceCleared) -> None:
        """Tell that a checkpoint was deleted or moved."""
        self._ledger.release_sources([message.path])
        if message.moved_to:
            events.SOURCE_MOVED(path=message.path, to=message.moved_to)
        else:
            events.SOURCE_DELETED(path=message.path)

    def _stayed(self, message: SourceStayed) -> None:
        """Tell, once for each content, that a checkpoint could not be deleted or moved."""
        if message.reason:
            self._keep(message.path, message.root, message.signature, message.reason)
        elif message.back_as:
            self._ledger.release_sources([message.path])
            if message.back_as != message.path:
                reason = (
                    "it had taken the name of a checkpoint that was done with, and another has taken that meanwhile"
                )
                events.SOURCE_PUT_BACK(path=message.back_as, was=message.path, reason=reason)

    def _put_back(self, message: SourcePutBack) -> None:
        """Tell that a file which a crash had left under a private name has a name again, or cannot get one."""
        if message.path:
            self._ledger.release_sources([message.private])
            events.SOURCE_PUT_BACK(path=message.path, was=message.private, reason=KILLED)
        elif message.reason and (signature := signature_at(message.private)) is not None:
            self._keep(message.private, message.root, signature, message.reason)

    def _keep(self, path: str, root: str, signature: FileSignature, reason: str) -> None:
        if self._ledger.keep_source(KeptSource(path, root, signature, reason, time.time())):
            events.SOURCE_KEPT(path=path, reason=reason)

    def _release_unwanted(self, config: RunConfig) -> None:
        """Forget what could not be deleted or moved, where that is no longer wanted, or it is no longer there."""
        self._ledger.release_sources(
            item.path
            for item in self._ledger.kept_sources()
            if (watch := config.watch_for(item.root, item.path)) is None
            or watch.after == "keep"
            or signature_at(item.path) != item.signature
        )
