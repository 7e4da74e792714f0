"""Writes checkpoints exactly as the training application does, foreign enum included."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sda_daemon.audio.spectrogram import SpectrogramConfig
from sda_daemon.controls.analysis import AnalysisResult
from sda_daemon.controls.serialization import analysis_to_dict
from sda_daemon.models.formats import SDA
from sda_daemon.models.vae import STRIDE, ConvVAE, OutputActivation, WeightsLayout, build_model

APPLICATION_MODULE = SDA.enum_module

SMALL_MELS = SpectrogramConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=16)
"""A spectrogram config that makes models of 3 MB instead of 12."""


def small_model(
    seed: int = 0, latent_dim: int = 8, columns: int = 1, n_mels: int = 16, activation: OutputActivation = "softplus"
) -> ConvVAE:
    """Return an untrained model with all its layers, the same for the same seed."""
    torch.manual_seed(seed)
    layout = WeightsLayout(latent_dim, -(-n_mels // STRIDE), columns, has_encoder_heads=True)
    model = build_model(layout, activation)
    model.mel_shape = (n_mels, columns * STRIDE)
    return model.eval()


def made_up_analysis(latent_dim: int = 8, count: int = 3) -> AnalysisResult:
    """Return an analysis with plausible numbers."""
    ones = np.ones(count, dtype=np.float32)
    labels = [f"Axis {index + 1}" for index in range(count)]
    return AnalysisResult(
        pca_components=np.eye(count, latent_dim, dtype=np.float32),
        pca_mean=np.linspace(-0.1, 0.1, latent_dim, dtype=np.float32),
        explained_variance_ratio=np.array([0.5**n for n in range(1, count + 1)], dtype=np.float32),
        n_active_components=count,
        component_labels=labels,
        suggested_labels=["brightness", *labels[1:]],
        safe_min=-2 * ones,
        safe_max=2 * ones,
        warning_min=-3 * ones,
        warning_max=3 * ones,
        step_size=0.3 * ones,
        feature_correlations={"brightness": [0.9] + [0.0] * (count - 1)},
        latent_dim=latent_dim,
    )


def checkpoint_dict(
    state_dict: Mapping[str, Tensor],
    *,
    epoch: int = 0,
    train_loss: float = 0.5,
    val_loss: float = 0.6,
    kl_weight: float = 0.01,
    latent_dim: int = 8,
    spectrogram: SpectrogramConfig = SMALL_MELS,
    analysis: AnalysisResult | None = None,
    optimizer_state: Mapping[str, Any] | None = None,
    scheduler_state: Mapping[str, Any] | None = None,
    epoch_metrics: list[dict[str, Any]] | None = None,
    training_config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what the training application puts into a checkpoint, but for its enum."""
    return {
        "version": 1,
        "epoch": epoch,
        "step": 0,
        "model_state_dict": dict(state_dict),
        "optimizer_state_dict": dict(optimizer_state or {}),
        "scheduler_state_dict": dict(scheduler_state or {}),
        "train_loss": train_loss,
        "val_loss": val_loss,
        "kl_weight": kl_weight,
        "training_config": {
            "latent_dim": latent_dim,
            "batch_size": 16,
            "max_epochs": 200,
            "learning_rate": 0.002,
            "kl_weight_max": 0.01,
            "chunk_duration_s": 1.0,
            "regularization": {"dropout": 0.2, "weight_decay": 0.01},
            "device": "auto",
            **(training_config or {}),
        },
        "spectrogram_config": dataclasses.asdict(spectrogram),
        "metrics_history": {"step_metrics": [], "epoch_metrics": epoch_metrics or []},
        "latent_analysis": None if analysis is None else analysis_to_dict(analysis),
    }


def write_checkpoint(
    path: Path, content: dict[str, Any], *, sidecar: bool = True, module: str = APPLICATION_MODULE
) -> Path:
    """Write a checkpoint with the application's enum in it, and its sidecar; return its path.

    Args:
        path: where to.
        content: the checkpoint's dict, but for the enum.
        sidecar: whether the sidecar is written too.
        module: of the enum, which is another in each generation of the application.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _application_enum(module) as preset:
        training = {**content["training_config"], "preset": preset("balanced")}
        torch.save({**content, "training_config": training}, path)
    if sidecar:
        facts = {key: content[key] for key in ("epoch", "train_loss", "val_loss")}
        path.with_name(path.name + ".meta.json").write_text(json.dumps(facts, indent=2))
    return path


@contextlib.contextmanager
def _application_enum(module: str) -> Iterator[type[Enum]]:
    """Make the enum's module exist while a pickle is written; readers will not find it."""
    names = module.split(".")
    made = [".".join(names[: n + 1]) for n in range(len(names)) if ".".join(names[: n + 1]) not in sys.modules]
    for name in made:
        sys.modules[name] = ModuleType(name)
    OverfittingPreset = Enum(
        "OverfittingPreset", {"BALANCED": "balanced", "CONSERVATIVE": "conservative"}, module=module
    )
    setattr(sys.modules[module], OverfittingPreset.__name__, OverfittingPreset)
    try:
        yield OverfittingPreset
    finally:
        for name in made:
            del sys.modules[name]


def write_small_checkpoint(path: Path, seed: int = 0, *, with_analysis: bool = False, **facts: Any) -> Path:
    """Write a complete checkpoint of a small untrained model: 3 MB, other weights for each seed."""
    model = small_model(seed)
    analysis = made_up_analysis() if with_analysis else None
    return write_checkpoint(path, checkpoint_dict(model.state_dict(), analysis=analysis, **facts))
