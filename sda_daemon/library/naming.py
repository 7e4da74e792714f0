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
