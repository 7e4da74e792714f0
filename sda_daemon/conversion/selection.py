"""Which models of a folder of checkpoints stay, where not all are wanted. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from sda_daemon.library.entry import ModelEntry
from sda_daemon.wording import real

Select = Literal["all", "best", "latest"]


def superseded(select: Select, models: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Return the models of one folder that are not to stay.

    Args:
        select: "all" keeps everything, "best" the lowest validation loss (the higher epoch of equal ones; a loss
            that is no finite number is worse than any that is), "latest" the highest epoch.
        models: the models that were made of the checkpoints of one folder.
    """
    if select == "all" or len(models) < 2:
        return []
    winner = min(models, key=_badness) if select == "best" else max(models, key=_recency)
    return [model for model in models if model is not winner]


def _badness(model: ModelEntry) -> tuple[bool, float, float, str]:
    loss = real(model.final_val_loss)
    is_number = loss is not None and math.isfinite(loss)
    return not is_number, loss if loss is not None and is_number else 0.0, -_epoch(model), model.model_id


def _recency(model: ModelEntry) -> tuple[float, str, str]:
    return _epoch(model), model.training_date or "", model.model_id


def _epoch(model: ModelEntry) -> float:
    """Return the epoch, lower than any other where the index does not know it."""
    epoch = real(model.training_epochs)
    return -math.inf if epoch is None or math.isnan(epoch) else epoch
