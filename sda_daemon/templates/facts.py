"""What templates know of a checkpoint, and the made-up checkpoints on which they are tried. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

_SAYS_NOTHING = ("checkpoints", "training")
"""Names of folders that every run has."""
_ONLY_A_TIME = re.compile(r"train_\d{8}_\d{6}", re.IGNORECASE)
"""Name of a run that tells when it began, and nothing else."""
_TOLD_NAMES = ("dataset_name", "dataset", "run_name", "run", "name", "model_name", "dataset_path", "dataset_dir")
"""Keys under which a trainer may tell what a run is about, the best first."""
_EPOCH_AT_END = re.compile(r"[\W_]*epoch[\W_]*\d+$", re.IGNORECASE)

FACTS: dict[str, str] = {
    "run": "the training run: the nearest folder above that is not called “checkpoints” or “training”; of one that is "
    "called train_DATE_TIME, the data set, if the sidecar or the training config names it; of a checkpoint directly "
    "in a watched folder, the file's name without its epoch",
    "epoch": "number of the epoch, counted from 0",
    "step": "number of the training step",
    "train_loss": "loss on the training data",
    "val_loss": "loss on the validation data; inf where training was cancelled within an epoch",
    "kl_weight": "weight of the KL divergence",
    "latent_dim": "size of the latent space",
    "file": "file name",
    "stem": "file name without its ending",
    "folder": "name of the folder that it lies in",
    "path": "absolute path",
    "relpath": "path below the watched folder",
    "parts": "list: the folders of relpath",
    "size_bytes": "size of the checkpoint",
    "mtime": "datetime: when it was written (UTC)",
    "now": "datetime: when it is converted (UTC)",
    "host": "name of this computer",
    "training": "dict: the training config, such as training.preset or training.batch_size",
    "spectrogram": "dict: sample_rate, n_fft, hop_length, n_mels, f_min, f_max, power",
    "analysis": "dict with n_active_components and labels; none where there are no sliders",
    "sidecar": "dict: the JSON that the trainer wrote beside the checkpoint; empty where there is none",
}
"""Every fact and what it is."""

OPEN_FACTS = ("training", "sidecar")
"""Their keys are the trainer's affair: one that the examples lack may be there all the same."""


def run_name(path: PurePath, drop_folder: PurePath | None = None, told: Iterable[Mapping[str, Any]] = ()) -> str:
    """Return the name of the training run that a checkpoint is of; see `FACTS`.

    Args:
        path: the checkpoint.
        drop_folder: a folder into which checkpoints of all kinds are put, whose own name says nothing of them.
        told: what the trainer says of the run, the best first.
    """
    folders = [parent for parent in path.parents if parent.name]
    if folders and folders[0] == drop_folder and folders[0].name.lower() not in _SAYS_NOTHING:
        return _EPOCH_AT_END.sub("", path.stem) or path.stem
    name = next((folder.name for folder in folders if folder.name.lower() not in _SAYS_NOTHING), "") or path.stem
    if _ONLY_A_TIME.fullmatch(name):
        return next(filter(None, map(_told_name, told)), name)
    return name


def _told_name(facts: Mapping[str, Any]) -> str:
    """Return what a sidecar or a training config calls the run or its data set; empty if it does not."""
    for key in _TOLD_NAMES:
        value = facts.get(key)
        if isinstance(value, Mapping):
            value = value.get("name")
        if isinstance(value, str) and (name := PurePath(value.strip()).name):
            return name
    return ""


def checkpoint_facts(
    path: PurePath,
    watch_root: PurePath | None,
    *,
    size_bytes: int,
    mtime_s: float,
    now: datetime,
    host: str,
    content: Mapping[str, Any],
    is_watched: bool = True,
) -> dict[str, Any]:
    """Return what templates can use.

    Args:
        path: the checkpoint.
        watch_root: the watched folder that it lies in, if any.
        size_bytes: its size.
        mtime_s: its modification time, in seconds since 1970.
        now: when it is converted.
        host: name of this computer.
        content: what is in it: `epoch`, `step`, `train_loss`, `val_loss`, `kl_weight`, `latent_dim`,
            `training` (dict), `spectrogram` (dict), `analysis` (dict with `n_active_components` and `labels`,
            or None), `sidecar` (dict).
        is_watched: whether `watch_root` is a watched folder, and not just one that someone has named.
    """
    told = [value for key in ("sidecar", "training") if isinstance(value := content.get(key), Mapping)]
    relative = path_below(path, watch_root)
    return {
        "path": str(path),
        "relpath": str(relative),
        "file": path.name,
        "stem": path.stem,
        "folder": path.parent.name,
        "parts": list(relative.parent.parts),
        "run": run_name(path, watch_root if is_watched else None, told),
        "size_bytes": size_bytes,
        "mtime": _moment(mtime_s),
        "now": now,
        "host": host,
        **content,
    }


def _moment(seconds: float) -> datetime:
    """Return a moment; of one that no calendar has (file systems may hold such) the nearest that there is."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return (datetime.max if seconds > 0 else datetime.min).replace(tzinfo=UTC)


def path_below(path: PurePath, watch_root: PurePath | None) -> PurePath:
    """Return the path below the watched folder; the bare name where there is none."""
    return path.relative_to(watch_root) if watch_root and path.is_relative_to(watch_root) else PurePath(path.name)


_TRAINING = {
    "latent_dim": 64,
    "batch_size": 16,
    "max_epochs": 200,
    "learning_rate": 0.0005,
    "preset": "balanced",
    "regularization": {
        "dropout": 0.2,
        "weight_decay": 0.01,
        "gradient_clip_norm": 1.0,
        "augmentation_expansion": 0,
    },
    "kl_warmup_fraction": 0.3,
    "kl_weight_max": 0.01,
    "free_bits": 0.5,
    "val_fraction": 0.1,
    "chunk_duration_s": 1.0,
    "checkpoint_interval": 10,
    "max_checkpoints": 3,
    "preview_interval": 5,
    "preview_interval_short": 0,
    "num_workers": 0,
    "device": "auto",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A made-up checkpoint. `what` completes “it fails for …”."""

    what: str
    facts: Mapping[str, Any]


def _example(what: str, epoch: int, val_loss: float, analysis: dict[str, Any] | None) -> Example:
    facts = checkpoint_facts(
        PurePath(f"/runs/field-recordings/checkpoints/checkpoint_epoch{epoch:04}.pt"),
        PurePath("/runs"),
        size_bytes=18_873_246,
        mtime_s=1_770_000_000.0,
        now=datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC),
        host="studio",
        content={
            "epoch": epoch,
            "step": 20 * epoch,
            "train_loss": 0.31,
            "val_loss": val_loss,
            "kl_weight": 0.01,
            "latent_dim": 64,
            "training": _TRAINING,
            "spectrogram": {
                "sample_rate": 48_000,
                "n_fft": 2048,
                "hop_length": 512,
                "n_mels": 128,
                "f_min": 0.0,
                "f_max": None,
                "power": 2.0,
            },
            "analysis": analysis,
            "sidecar": {"epoch": epoch, "train_loss": 0.31, "val_loss": val_loss},
        },
    )
    return Example(what, facts)


EXAMPLES = (
    _example("a finished training", 190, 0.35, {"n_active_components": 12, "labels": ["brightness"]}),
    _example("a checkpoint without analysis (no sliders)", 40, 0.52, None),
    _example("a training that was cancelled within an epoch (val_loss is inf)", 0, math.inf, None),
)
"""Templates are tried on each of them when a config is loaded."""
DEEP_PARTS = ["studio", "data", "datasets", "field-recordings", "training", "checkpoints"]
"""Folders of a tree that is deeper than that of the examples: what asks for one of `parts` may find it there."""
