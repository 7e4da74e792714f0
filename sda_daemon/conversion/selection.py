"""Which models of a folder of checkpoints stay, where not all are wanted. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from sda_daemon.library.entry import ModelEntry

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


def _badness(model: ModelEntry) -> tuple[bool, float, int, str]:
    loss = model.final_val_loss
    is_number = loss is not None and math.isfinite(loss)
    return not is_number, loss if is_number else 0.0, -model.training_epochs, model.model_id


def _recency(model: ModelEntry) -> tuple[int, str, str]:
    return model.training_epochs, model.training_date or "", model.model_id
