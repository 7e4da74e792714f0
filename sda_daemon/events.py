"""The catalogue of structured events: every name, how loud it is, when it is logged, with which fields, in which words.

An event is logged by calling it: `CHECKPOINT_SEEN(path=…, watch=…)`. Names are static and values are
fields, so that a log can be queried. In a program that has not configured structlog (one that uses
this package as a library) events go to the standard `logging` logger `sda_daemon`. What an event says to a
person, the MESSAGE of a journal entry for one, is its sentence: `sentence_of`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sda_daemon.wording import text_of

STRICT_VARIABLE = "SDA_DAEMON_STRICT_EVENTS"
"""Set in the tests: an event logged with fields other than its catalogue entry's is then an error."""

_fallback = logging.getLogger("sda_daemon")


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of event.

    Args:
        name: static dotted name.
        level: a level of the `logging` module.
        when: one sentence for the event reference.
        fields: the keys that it may carry; names end in their unit where they have one.
        sentence: what it says to a person, with fields in braces; without one it is told by `when` and its values.
    """

    name: str
    level: int
    when: str
    fields: tuple[str, ...] = ()
    sentence: str = ""

    def __call__(self, **values: Any) -> None:
        """Log the event. What cannot be told breaks nothing that is being done, and is no error of it."""
        if os.environ.get(STRICT_VARIABLE):
            unknown = set(values) - set(self.fields)
            if unknown:
                raise TypeError(f"event {self.name} does not have the fields {sorted(unknown)}")
        with contextlib.suppress(Exception):
            self._log(values)

    def _log(self, values: dict[str, Any]) -> None:
        # Whoever configures structlog has imported it; commands that only look need not wait for its import.
        structlog = sys.modules.get("structlog")
        if structlog is not None and structlog.is_configured():
            structlog.get_logger("sda_daemon").log(self.level, self.name, **values)
        elif _fallback.isEnabledFor(self.level):
            _fallback.log(self.level, "%s %s", self.name, values)


DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

# fmt: off
# --- the daemon -----------------------------------------------------------------------------------
DAEMON_STARTED = Event("daemon.started", INFO, "The daemon holds its locks and begins to watch.",
    ("pid", "version", "config", "models_dir", "state_dir", "watches"),
    "Started (version {version}); folders to watch: {watches}; models go to {models_dir}")
DAEMON_STOPPING = Event("daemon.stopping", INFO, "A stop was asked for; running conversions may finish.",
    ("reason", "running", "waiting"),
    "Stopping ({reason}); may finish: {running}; left for the next start: {waiting}")
DAEMON_STOPPED = Event("daemon.stopped", INFO, "The daemon has let go of everything and exits.",
    ("reason", "uptime_s", "converted", "failed"),
    "Stopped ({reason}) after {uptime_s} s; converted: {converted}; failed: {failed}")
DAEMON_CRASHED = Event("daemon.crashed", ERROR, "An error that should not be possible ended the daemon.",
    ("error",),
    "Ended by an error that should not be possible: {error}")

# --- the config -----------------------------------------------------------------------------------
CONFIG_RELOADED = Event("config.reloaded", INFO, "The config file was read again and is in force.",
    ("path", "changed"),
    "Read the config again: {path}")
CONFIG_REJECTED = Event("config.rejected", ERROR, "The config file is not valid now; the old config stays in force.",
    ("path", "line", "key", "reason", "problems"),
    "The config stays as it was, because the new one is not valid: {reason}")
CONFIG_RESTART_REQUIRED = Event("config.restart_required", WARNING,
    "Settings were changed that keep their old value until the next start.",
    ("keys", "hint"),
    "Changed in the config, but as before until the next start: {keys}; {hint}")
CONFIG_DOUBTFUL = Event("config.doubtful", WARNING, "The config is valid, but hardly what is meant.",
    ("key", "reason"),
    "The config is valid, but {key}: {reason}")
NOTES_IGNORED = Event("notes.ignored", WARNING, "A sda.yaml file or a sidecar could not be used for a checkpoint.",
    ("path", "checkpoint", "reason"),
    "Could not use {path} for {checkpoint}: {reason}")

# --- watching -------------------------------------------------------------------------------------
WATCH_STARTED = Event("watch.started", INFO, "A folder is being watched.",
    ("path", "observer"),
    "Watching {path} ({observer})")
WATCH_MISSING = Event("watch.missing", WARNING, "A folder to watch is not there; it is watched once it is.",
    ("path", "reason"),
    "{path} is not watched yet: {reason}")
WATCH_LOST = Event("watch.lost", WARNING, "A watched folder was removed, renamed or replaced, or its watcher died.",
    ("path", "reason"),
    "Lost the watch on {path}: {reason}")
WATCH_DEGRADED = Event("watch.degraded", WARNING, "A folder cannot be watched natively and is polled instead.",
    ("path", "reason", "hint"),
    "{path} is polled instead of watched: {reason}; {hint}")
WATCH_RECOVERED = Event("watch.recovered", INFO, "A folder that was polled is watched natively again.",
    ("path",),
    "{path} is watched natively again")
RESCAN_STARTED = Event("rescan.started", DEBUG, "All that lies in a watched folder is compared with the ledger.",
    ("path", "reason"),
    "Looking through {path}: {reason}")
RESCAN_FINISHED = Event("rescan.finished", INFO, "A rescan is done.",
    ("path", "reason", "files", "news", "duration_s"),
    "Looked through {path}: checkpoints: {files}, new: {news}")

# --- checkpoints ----------------------------------------------------------------------------------
CHECKPOINT_SEEN = Event("checkpoint.seen", INFO, "A new or changed checkpoint was noticed.",
    ("path", "size_bytes", "watch"),
    "New checkpoint {path}")
CHECKPOINT_SETTLED = Event("checkpoint.settled", INFO, "A checkpoint is complete and no one writes to it.",
    ("path", "size_bytes", "waited_s"),
    "Complete: {path}")
CHECKPOINT_INCOMPLETE = Event("checkpoint.incomplete", WARNING, "A file has stayed half written for very long.",
    ("path", "size_bytes", "waited_s", "reason"),
    "Still half written: {path}: {reason}")
CHECKPOINT_VANISHED = Event("checkpoint.vanished", INFO, "A checkpoint was deleted before it was converted.",
    ("path",),
    "Deleted before it was converted: {path}")
CHECKPOINT_SKIPPED = Event("checkpoint.skipped", INFO, "A checkpoint needs no conversion.",
    ("path", "reason", "model_id", "name", "file"),
    "Nothing to do for {path}: {reason}")

# --- conversion -----------------------------------------------------------------------------------
CONVERSION_STARTED = Event("conversion.started", INFO, "A worker begins with a checkpoint.",
    ("path", "attempt"),
    "Converting {path} (attempt {attempt})")
CONVERSION_SUCCEEDED = Event("conversion.succeeded", INFO, "A model is in the library.",
    ("path", "model_id", "name", "file", "action", "duration_s"),
    "Converted {path} into {file} ({name!r}, {action}) in {duration_s} s")
CONVERSION_FAILED = Event("conversion.failed", ERROR, "A checkpoint could not be converted.",
    ("path", "kind", "reason", "permanent", "attempt", "retry_in_s"),
    "Could not convert {path}: {reason}")
CONVERSION_GIVEN_UP = Event("conversion.given_up", ERROR, "A checkpoint failed too often and is left alone.",
    ("path", "kind", "reason", "attempts", "hint"),
    "Gave up on {path} after {attempts} attempts: {reason}; {hint}")
CONVERSION_DROPPED_VALUE = Event("conversion.dropped_value", INFO,
    "A value of a foreign class is left out of the model file.",
    ("path", "key", "foreign_name"),
    "Left {key} ({foreign_name}) of {path} out of the model")
CONVERSION_NOT_PLAYABLE = Event("conversion.not_playable", WARNING,
    "The application that opens this kind of file will not play a new model right.",
    ("path", "model_id", "file", "format", "reason", "hint"),
    "The model {file} of {path} will not play as it should: {reason}. {hint}")
SELECT_BEGINS = Event("select.begins", WARNING,
    "For the first time, models of a folder give way to a better or later one, and go to the trash.",
    ("folder", "select", "models", "names", "in_use", "hint"),
    "Models made in {folder} go to the trash (select: {select}), how many: {models}; {hint}")
MODEL_SUPERSEDED = Event("model.superseded", INFO,
    "A model gave way to a better or later one of the same folder (`select`); it is in the trash.",
    ("model_id", "name", "file", "by", "select"),
    "Moved {name!r} ({file}) into the trash: {by!r} took its place (select: {select})")
MODEL_GAVE_WAY = Event("model.gave_way", WARNING,
    "Another program has saved the same weights: the daemon's model of them is in the trash.",
    ("model_id", "name", "file", "by", "by_id", "by_file", "hint"),
    "Moved {name!r} ({file}) to the trash: another program has saved the same weights as {by!r}")
APPLICATION_UNREADABLE = Event("application.unreadable", WARNING,
    "Presets or history of the application cannot be read: all models count as in use.",
    ("folder", "what", "reason"),
    "All models are kept: the application's {what} ({folder}) cannot be read: {reason}")
MODEL_STAYED = Event("model.stayed", INFO,
    "Another program has saved the same weights, but the daemon's model of them is in use and stays.",
    ("model_id", "name", "file", "by", "by_id", "by_file", "reason"),
    "{name!r} ({file}) has the same weights as {by!r} of another program, and stays: {reason}")
MODEL_GIVEN_SLIDERS = Event("model.given_sliders", INFO,
    "Another program's model got the sliders of one with the same weights.",
    ("model_id", "name", "file", "sliders"),
    "Gave {sliders} sliders to {name!r} ({file})")
MODEL_WITHOUT_SLIDERS = Event("model.without_sliders", WARNING,
    "A model lacks sliders, and cannot be given them; it stays as it is.",
    ("model_id", "name", "file", "reason"),
    "{name!r} ({file}) cannot be given sliders: {reason}")
SOURCE_DELETED = Event("source.deleted", INFO, "A checkpoint was deleted after its model was safe (`after: delete`).",
    ("path",),
    "Deleted {path}, its model is safe")
SOURCE_MOVED = Event("source.moved", INFO, "A checkpoint was moved after its model was safe (`after: move`).",
    ("path", "to"),
    "Moved {path} to {to}, its model is safe")
SOURCE_KEPT = Event("source.kept", WARNING,
    "A checkpoint could not be deleted or moved after its conversion; told once for each content.",
    ("path", "reason"),
    "Could not clear away {path}: {reason}")
SOURCE_PUT_BACK = Event("source.put_back", WARNING,
    "A checkpoint that was not to be deleted or moved after all, or not yet, has a name again.",
    ("path", "was", "reason"),
    "Put back {path}: {reason}")
LEDGER_REBUILT = Event("ledger.rebuilt", INFO, "A new ledger was filled from the provenance of the models.",
    ("models", "checkpoints"),
    "Filled a new ledger from the models; models: {models}, checkpoints: {checkpoints}")
LEDGER_FAILED = Event("ledger.failed", ERROR, "The ledger cannot be written or read; everything waits and begins anew.",
    ("reason", "retry_in_s"))
WORKER_OUTPUT = Event("worker.output", WARNING, "Something a worker process or its libraries printed.",
    ("text",),
    "A worker said: {text}")
PACKAGE_SAID = Event("package.said", WARNING, "Something that a Python package in use logged.",
    ("package", "text"),
    "{package} said: {text}")
LOG_LINES_LOST = Event("log.lines_lost", WARNING,
    "So many events before this one could not be written: the disk was full, or nobody read them.",
    ("count",),
    "Events that could not be written before this one: {count}")

# --- the library ----------------------------------------------------------------------------------
LIBRARY_ENTRY_ADDED = Event("library.entry_added", INFO, "A model is in the index.",
    ("model_id", "name", "file"),
    "New in the library: {name!r} ({file})")
LIBRARY_ENTRY_ADOPTED = Event("library.entry_adopted", WARNING, "A model file without an entry got one.",
    ("model_id", "name", "file", "reason"),
    "Took {file} into the library as {name!r}: {reason}")
LIBRARY_ENTRY_REMOVED = Event("library.entry_removed", WARNING, "An entry left the index.",
    ("model_id", "name", "file", "reason"),
    "Removed {name!r} ({file}) from the index: {reason}")
LIBRARY_ENTRY_UPDATED = Event("library.entry_updated", WARNING, "An entry was brought up to date with its file.",
    ("model_id", "name", "file", "reason"),
    "Brought {name!r} ({file}) up to date: {reason}")
LIBRARY_FILE_INVALID = Event("library.file_invalid", WARNING,
    "A model file in the folder cannot be read as a model; it is left alone.",
    ("file", "reason"),
    "{file} is no readable model and is left alone: {reason}")
LIBRARY_ENTRY_INVALID = Event("library.entry_invalid", WARNING,
    "An entry of the index cannot be used; it is not shown, and stays as it is.",
    ("model_id", "reason"),
    "The entry {model_id} of the index cannot be used and stays as it is: {reason}")
LIBRARY_ENTRY_FOREIGN = Event("library.entry_foreign", INFO,
    "An entry of the index is of no model that this program knows; it stays as it is.",
    ("key", "file", "reason"),
    "The entry {key} of the index ({file}) belongs to another program and stays: {reason}")
LIBRARY_NAMES_SHARED = Event("library.names_shared", WARNING,
    "Several models have one name, of which `files` are the first's; told once for each name.",
    ("count", "names", "files", "hint"))
LIBRARY_WEIGHTS_KNOWN = Event("library.weights_known", INFO,
    "Models were read to know which weights they hold; what is known is not read again.",
    ("files", "unreadable", "left", "duration_s"),
    "Read the weights of {files} models in {duration_s} s")
LIBRARY_WEIGHTS_UNKNOWN = Event("library.weights_unknown", WARNING,
    "The weights of a model cannot be read; that is not tried again before it changes.",
    ("file", "reason"),
    "The weights of {file} cannot be read: {reason}")
LIBRARY_PUT_BACK = Event("library.put_back", WARNING,
    "What another program had left out of the index, because it does not know it, was put back.",
    ("count", "what"),
    "Put back into the index what another program had left out: {what}")
LIBRARY_INDEX_BROKEN = Event("library.index_broken", WARNING, "The index could not be read and was set aside.",
    ("file", "kept_as", "reason", "recovered_from"),
    "The index {file} could not be read ({reason}); it is kept as {kept_as}")
LIBRARY_REPAIRED = Event("library.repaired", INFO, "The index was made to agree with the folder.",
    ("removed", "added", "updated", "invalid"),
    "Repaired the index; added: {added}, removed: {removed}, updated: {updated}")
LIBRARY_PRUNE_REFUSED = Event("library.prune_refused", ERROR,
    "So many model files are missing at once that the index is left as it is.",
    ("missing", "known", "hint"),
    "{missing} of {known} models are missing at once, so the index stays as it is: {hint}")
LIBRARY_REPAIR_FAILED = Event("library.repair_failed", ERROR, "The index could not be made to agree with the folder.",
    ("reason",),
    "The index could not be repaired: {reason}")
LIBRARY_FOLDER_LOST = Event("library.folder_lost", ERROR,
    "The models folder is gone, or a bare one has its name; conversions wait.",
    ("path", "reason", "hint"),
    "The models folder {path} is out of reach, conversions wait: {reason}; {hint}")
LIBRARY_FOLDER_BACK = Event("library.folder_back", INFO, "The models folder is there again; conversions go on.",
    ("path",),
    "The models folder {path} is there again, conversions go on")
LIBRARY_SWEPT = Event("library.swept", INFO, "Leftovers of interrupted writes were removed.",
    ("removed",),
    "Swept away what interrupted writes left behind: {removed}")
# fmt: on

_BY_NAME = {value.name: value for value in list(globals().values()) if isinstance(value, Event)}


def catalogue() -> Iterator[Event]:
    """Yield every event of this module in the order in which it is defined."""
    yield from _BY_NAME.values()


def named(name: str) -> Event | None:
    """Return the event of a name; None if there is none."""
    return _BY_NAME.get(name)


def sentence_of(name: str, values: Mapping[str, Any]) -> str:
    """Return what an event says to a person.

    Args:
        name: the event's name.
        values: its values; None for those that do not apply.
    """
    event = named(name)
    if event is not None and event.sentence:
        try:
            text = event.sentence.format_map(values)
        except KeyError:
            pass  # an event may leave out any of its values
        else:
            return text + _retry(values)
    described = name if event is None else event.when.rstrip(".")
    details = ", ".join(f"{key}={text_of(value)}" for key, value in values.items() if value is not None)
    return f"{described} ({details})" if details else described


def _retry(values: Mapping[str, Any]) -> str:
    pause_s = values.get("retry_in_s")
    return "" if pause_s is None else f"; next try in {pause_s:g} s"
