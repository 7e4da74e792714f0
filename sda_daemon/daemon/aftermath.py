"""What follows a conversion: remembering what was made of what, pruning by `select`, clearing the sources.

Each step looks at what is, not at what has just happened, so that a crash between two of them is made up for by
doing the step again at the next start or rescan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sda_daemon import events
from sda_daemon.conversion.ledger import SUPERSEDED_KIND, Ledger, MadeModel
from sda_daemon.conversion.policy import Status
from sda_daemon.conversion.publish import Action, Published
from sda_daemon.conversion.selection import superseded
from sda_daemon.errors import ModelFileError
from sda_daemon.intake.probe import look
from sda_daemon.intake.sources import delete_source, move_source
from sda_daemon.library.catalog import ModelLibrary
from sda_daemon.library.entry import ModelEntry
from sda_daemon.library.removal import unlink_models
from sda_daemon.models.header import read_model_header
from sda_daemon.settings.schema import WatchSettings
from sda_daemon.signature import FileSignature


class Aftermath:
    """The steps after publishing.

    Args:
        ledger: remembers which models the daemon made, and of what.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def remember(self, library: ModelLibrary, published: Iterable[Published]) -> None:
        """Remember the models that are the daemon's own: only these are ever pruned or replaced."""
        made = [
            MadeModel(item.entry.model_id, item.converted.weights_digest, job.path, job.watch_root)
            for item in published
            if item.entry is not None and self._is_own(library, item) and (job := item.converted.job)
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
        relative = job.path[len(job.watch_root) :].lstrip("/")
        is_same = header.metadata.model_id == item.entry.model_id and header.provenance.get("source_path") == relative
        return bool(is_same and header.provenance.get("made_by_daemon"))

    def prune(self, library: ModelLibrary, folders: Mapping[str, WatchSettings]) -> None:
        """Where only the best or the latest model of a folder is wanted, remove the others: index, then file.

        Args:
            library: the models.
            folders: folders of checkpoints, with the settings of their watched folder.

        Raises:
            LibraryError, OSError: the index or a file cannot be changed; it is done by the next call.
        """
        losers: dict[str, ModelEntry] = {}
        for folder, watch in folders.items():
            if watch.select == "all":
                continue
            made = [library.get(model.model_id) for model in self._ledger.models_below(folder)]
            models = [entry for entry in made if entry is not None]
            lost = superseded(watch.select, models)
            winner = next((entry for entry in models if entry not in lost), None)
            for entry in lost:
                if self._rehome(entry.model_id, folder):
                    continue
                losers[entry.model_id] = entry
                events.MODEL_SUPERSEDED(
                    model_id=entry.model_id,
                    name=entry.name,
                    file=entry.file_path,
                    by=winner.name if winner else "",
                    select=watch.select,
                )
        if losers:
            self._ledger.mark_superseded(losers)
            library.remove_many(losers)
            unlink_models(library.models_dir, [entry.file_path for entry in losers.values()])
            self._ledger.forget_models(losers)

    def prune_all(self, library: ModelLibrary, watches: Mapping[str, WatchSettings]) -> None:
        """Prune every folder that models were made of; see `prune`."""
        made = [model for model in self._ledger.made_models() if model.source_path and model.root in watches]
        self.prune(library, {str(Path(model.source_path).parent): watches[model.root] for model in made})

    def _rehome(self, model_id: str, folder: str) -> bool:
        """Leave a model to another folder that has the same checkpoint; tell whether there is one."""
        for path, root in self._ledger.paths_of_model(model_id):
            if str(Path(path).parent) != folder and look(path) is not None:
                known = self._ledger.made_model(model_id)
                digest = known.weights_digest if known else ""
                self._ledger.remember_models([MadeModel(model_id, digest, path, root)])
                return True
        return False

    def clear_source(
        self, library: ModelLibrary, path: str, root: str, signature: FileSignature, watch: WatchSettings
    ) -> None:
        """Delete or move a converted checkpoint, if that is wanted, it is still the same, and its model is there.

        A checkpoint whose model gave way to a better one (`select`) is done too.
        """
        if watch.after == "keep" or look(path) != signature:
            return
        row = self._ledger.get(path)
        if row is None or row.signature != signature or row.status not in (Status.DONE, Status.DUPLICATE):
            return
        if not library.holds(row.model_id) and row.kind != SUPERSEDED_KIND:
            return
        try:
            if watch.after == "delete":
                delete_source(Path(path))
                events.SOURCE_DELETED(path=path)
            elif watch.move_to is not None:
                target = move_source(Path(path), Path(root), watch.move_to)
                events.SOURCE_MOVED(path=path, to=str(target))
        except OSError as error:
            events.SOURCE_KEPT(path=path, reason=str(error))
