"""What each event says to a person: the MESSAGE of a journal entry. Pure.

An event without a sentence of its own is told by the catalogue's description and its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sda_daemon import events
from sda_daemon.wording import text_of

_SENTENCES: dict[str, str] = {
    "daemon.started": "Started (version {version}); folders to watch: {watches}; models go to {models_dir}",
    "daemon.stopping": "Stopping ({reason}); may finish: {running}; left for the next start: {waiting}",
    "daemon.stopped": "Stopped ({reason}) after {uptime_s} s; converted: {converted}; failed: {failed}",
    "daemon.crashed": "Ended by an error that should not be possible: {error}",
    "config.reloaded": "Read the config again: {path}",
    "config.rejected": "The config stays as it was, because the new one is not valid: {reason}",
    "config.restart_required": "Changed in the config, but as before until the next start: {keys}; {hint}",
    "config.doubtful": "The config is valid, but {key}: {reason}",
    "notes.ignored": "Could not use {path} for {checkpoint}: {reason}",
    "watch.started": "Watching {path} ({observer})",
    "watch.missing": "{path} is not watched yet: {reason}",
    "watch.lost": "Lost the watch on {path}: {reason}",
    "watch.degraded": "{path} is polled instead of watched: {reason}; {hint}",
    "watch.recovered": "{path} is watched natively again",
    "rescan.started": "Looking through {path}: {reason}",
    "rescan.finished": "Looked through {path}: checkpoints: {files}, new: {news}",
    "checkpoint.seen": "New checkpoint {path}",
    "checkpoint.settled": "Complete: {path}",
    "checkpoint.incomplete": "Still half written: {path}: {reason}",
    "checkpoint.vanished": "Deleted before it was converted: {path}",
    "checkpoint.skipped": "Nothing to do for {path}: {reason}",
    "conversion.started": "Converting {path} (attempt {attempt})",
    "conversion.succeeded": "Converted {path} into {file} ({name!r}, {action}) in {duration_s} s",
    "conversion.failed": "Could not convert {path}: {reason}",
    "conversion.given_up": "Gave up on {path} after {attempts} attempts: {reason}; {hint}",
    "conversion.dropped_value": "Left {key} ({foreign_name}) of {path} out of the model",
    "conversion.not_playable": "The model {file} of {path} will not play as it should: {reason}. {hint}",
    "select.begins": "Models made in {folder} go to the trash (select: {select}), how many: {models}; {hint}",
    "model.superseded": "Moved {name!r} ({file}) into the trash: {by!r} took its place (select: {select})",
    "model.gave_way": "Moved {name!r} ({file}) to the trash: another program has saved the same weights as {by!r}",
    "application.unreadable": "All models are kept: the application's {what} ({folder}) cannot be read: {reason}",
    "model.stayed": "{name!r} ({file}) has the same weights as {by!r} of another program, and stays: {reason}",
    "model.given_sliders": "Gave {sliders} sliders to {name!r} ({file})",
    "model.without_sliders": "{name!r} ({file}) cannot be given sliders: {reason}",
    "source.deleted": "Deleted {path}, its model is safe",
    "source.moved": "Moved {path} to {to}, its model is safe",
    "source.kept": "Could not clear away {path}: {reason}",
    "source.put_back": "Put back {path}: {reason}",
    "ledger.rebuilt": "Filled a new ledger from the models; models: {models}, checkpoints: {checkpoints}",
    "worker.output": "A worker said: {text}",
    "package.said": "{package} said: {text}",
    "library.entry_added": "New in the library: {name!r} ({file})",
    "library.entry_adopted": "Took {file} into the library as {name!r}: {reason}",
    "library.entry_removed": "Removed {name!r} ({file}) from the index: {reason}",
    "library.entry_updated": "Brought {name!r} ({file}) up to date: {reason}",
    "library.file_invalid": "{file} is no readable model and is left alone: {reason}",
    "library.entry_invalid": "The entry {model_id} of the index cannot be used and stays as it is: {reason}",
    "library.entry_foreign": "The entry {key} of the index ({file}) belongs to another program and stays: {reason}",
    "library.weights_known": "Read the weights of {files} models in {duration_s} s",
    "library.weights_unknown": "The weights of {file} cannot be read: {reason}",
    "library.put_back": "Put back into the index what another program had left out: {what}",
    "library.index_broken": "The index {file} could not be read ({reason}); it is kept as {kept_as}",
    "library.repaired": "Repaired the index; added: {added}, removed: {removed}, updated: {updated}",
    "library.prune_refused": "{missing} of {known} models are missing at once, so the index stays as it is: {hint}",
    "library.repair_failed": "The index could not be repaired: {reason}",
    "library.folder_lost": "The models folder {path} is out of reach, conversions wait: {reason}; {hint}",
    "library.folder_back": "The models folder {path} is there again, conversions go on",
    "library.swept": "Swept away what interrupted writes left behind: {removed}",
}


def sentence(name: str, values: Mapping[str, Any]) -> str:
    """Return the sentence for an event.

    Args:
        name: the event's name.
        values: its values; None for those that do not apply.
    """
    template = _SENTENCES.get(name)
    if template is not None:
        try:
            text = template.format_map(values)
        except KeyError:
            pass  # an event may leave out any of its values
        else:
            return text + _retry(values)
    described = _descriptions().get(name, name)
    details = ", ".join(f"{key}={text_of(value)}" for key, value in values.items() if value is not None)
    return f"{described} ({details})" if details else described


def _retry(values: Mapping[str, Any]) -> str:
    pause_s = values.get("retry_in_s")
    return "" if pause_s is None else f"; next try in {pause_s:g} s"


def _descriptions() -> dict[str, str]:
    return {event.name: event.when.rstrip(".") for event in events.catalogue()}
