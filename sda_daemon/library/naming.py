"""Names that tell the models of a library apart: the training application finds a model by its name. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from sda_daemon.library.entry import ModelEntry
from sda_daemon.models.metadata import ModelMetadata


def name_apart(metadata: ModelMetadata, entries: Iterable[ModelEntry]) -> str:
    """Return a model's name, with what tells it from the model that has this name already.

    That is, in brackets behind the name: the epoch, the day, the time of the training, or else the beginning of its id,
    whichever is the first to differ and free.

    Args:
        metadata: the new model's.
        entries: the models of the library; one with the new model's id does not count.
    """
    others = {_folded(entry.name): entry for entry in entries if entry.model_id != metadata.model_id}
    twin = others.get(_folded(metadata.name))
    if twin is None:
        return metadata.name
    for difference in _differences(metadata, twin):
        name = f"{metadata.name} ({difference})"
        if _folded(name) not in others:
            return name
    return f"{metadata.name} ({metadata.model_id})"


def holder_of(name: str, entries: Iterable[ModelEntry], model_id: str) -> ModelEntry | None:
    """Return the model that has a name already which another one is to have, None where it is free.

    Args:
        name: the name; neither case nor spaces tell two apart.
        entries: the models of the library.
        model_id: of the model that is to have it.
    """
    wanted = _folded(name)
    return next((entry for entry in entries if entry.model_id != model_id and _folded(entry.name) == wanted), None)


def shared_names(entries: Iterable[ModelEntry]) -> list[list[ModelEntry]]:
    """Return the models that cannot be told apart by their names, those of one name together; no name is no name."""
    by_name: dict[str, list[ModelEntry]] = {}
    for entry in entries:
        if folded := _folded(entry.name):
            by_name.setdefault(folded, []).append(entry)
    return [found for found in by_name.values() if len(found) > 1]


def _folded(name: str | None) -> str:
    return " ".join((name or "").casefold().split())


def _differences(metadata: ModelMetadata, twin: ModelEntry) -> Iterator[str]:
    if metadata.training_epochs != twin.training_epochs:
        yield f"epoch {metadata.training_epochs}"
    mine, other = _moment(metadata.training_date), _moment(twin.training_date)
    if mine is not None:
        for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"):
            if other is None or mine.strftime(form) != other.strftime(form):
                yield mine.strftime(form)
    yield metadata.model_id[:8]


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return None
