"""Trains a small ConvVAE and analyses its latent space, for the demonstration and the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sda_daemon.controls.analysis import DEFAULT_N_STEPS, AnalysisResult
from sda_daemon.demo.losses import vae_loss
from sda_daemon.models.vae import ConvVAE

ACTIVE_SHARE = 0.98
"""Components that together explain this share of the variance become sliders."""


@dataclass(slots=True)
class Training:
    """A finished training."""

    model: ConvVAE
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    train_loss: float = 0.0
    val_loss: float = 0.0
    kl_weight: float = 0.0
    epochs: list[dict[str, Any]] = field(default_factory=list)


def train(
    mels: Tensor,
    latent_dim: int,
    epochs: int,
    on_epoch: Callable[[int, float, float], None] = lambda _epoch, _train, _val: None,
) -> Training:
    """Train on log-mel spectrograms `[count, 1, n_mels, frames]`; the last quarter is kept for validation.

    The weight of the KL divergence rises from 0 to 0.01 over the first half.
    """
    torch.manual_seed(0)
    model = ConvVAE(latent_dim=latent_dim)
    split = max(1, len(mels) * 3 // 4)
    seen, unseen = mels[:split], mels[split:]
    with torch.no_grad():
        model(seen[:2])  # makes the linear layers, which the optimizer must know
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    training = Training(model, optimizer, scheduler)
    for epoch in range(epochs):
        training.kl_weight = 0.01 * min(1.0, epoch / max(1, epochs // 2))
        model.train()
        loss, _, _ = vae_loss(*_run(model, seen), kl_weight=training.kl_weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        model.eval()
        with torch.no_grad():
            validation, _, divergence = vae_loss(*_run(model, unseen), kl_weight=training.kl_weight)
        training.train_loss, training.val_loss = loss.item(), validation.item()
        training.epochs.append(
            {
                "epoch": epoch,
                "train_loss": training.train_loss,
                "val_loss": training.val_loss,
                "kl_divergence": divergence.item(),
            }
        )
        on_epoch(epoch, training.train_loss, training.val_loss)
    return training


def _run(model: ConvVAE, mels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    reconstruction, mu, logvar = model(mels)
    return reconstruction, mels, mu, logvar


def analyse(model: ConvVAE, mels: Tensor) -> AnalysisResult:
    """Find the principal components of where the model puts these spectrograms.

    Ranges come from the data's own projections: 5th to 95th percentile is safe, all of it (and 20 % more) usable.
    """
    model.eval()
    with torch.no_grad():
        means = model.encode(mels)[0].numpy().astype(np.float64)
    center = means.mean(axis=0)
    _, scales, directions = np.linalg.svd(means - center, full_matrices=False)
    shares = scales**2 / max(float((scales**2).sum()), 1e-12)
    count = min(int(np.searchsorted(np.cumsum(shares), ACTIVE_SHARE)) + 1, len(shares))
    projections = (means - center) @ directions[:count].T
    safe_min, safe_max = np.percentile(projections, [5, 95], axis=0)
    reach = np.abs(projections).max(axis=0)
    labels = [f"Axis {index + 1}" for index in range(count)]
    loudness = mels.mean(dim=(1, 2, 3)).numpy()
    return AnalysisResult(
        pca_components=directions[:count].astype(np.float32),
        pca_mean=center.astype(np.float32),
        explained_variance_ratio=shares[:count].astype(np.float32),
        n_active_components=count,
        component_labels=labels,
        suggested_labels=labels,
        safe_min=safe_min.astype(np.float32),
        safe_max=safe_max.astype(np.float32),
        warning_min=(-1.2 * reach).astype(np.float32),
        warning_max=(1.2 * reach).astype(np.float32),
        step_size=(1.2 * reach / (DEFAULT_N_STEPS // 2)).astype(np.float32),
        feature_correlations={"loudness": [_correlation(loudness, column) for column in projections.T]},
        latent_dim=model.latent_dim,
    )


def _correlation(left: Any, right: Any) -> float:
    spread = float(np.std(left) * np.std(right))
    return float(np.mean((left - left.mean()) * (right - right.mean())) / spread) if spread else 0.0
