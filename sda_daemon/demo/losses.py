"""The training loss of a VAE: reconstruction error plus a weighted KL divergence with free bits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def kl_divergence(mu: Tensor, logvar: Tensor, free_bits: float = 0.0) -> Tensor:
    """Return the KL divergence from the unit normal distribution, a scalar in nats per example.

    D = ½ Σ (μ² + σ² − log σ² − 1) (Kingma and Welling 2014, appendix B), averaged over the batch. Each
    latent dimension counts at least `free_bits` nats (Kingma et al. 2016), so that it is not switched off.

    Args:
        mu: means, `[batch, latent_dim]`.
        logvar: log variances, `[batch, latent_dim]`.
        free_bits: floor per dimension, in nats.
    """
    per_dimension = 0.5 * (mu.square() + logvar.exp() - logvar - 1.0).mean(dim=0)
    return torch.clamp(per_dimension, min=free_bits).sum()


def vae_loss(
    reconstruction: Tensor,
    target: Tensor,
    mu: Tensor,
    logvar: Tensor,
    kl_weight: float = 1.0,
    free_bits: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (total, reconstruction error, KL divergence), each a scalar.

    Args:
        reconstruction: `[batch, 1, n_mels, time]`.
        target: the same shape.
        mu: `[batch, latent_dim]`.
        logvar: `[batch, latent_dim]`.
        kl_weight: weight of the KL divergence, raised from 0 during warm-up.
        free_bits: see `kl_divergence`.
    """
    error = functional.mse_loss(reconstruction, target)
    divergence = kl_divergence(mu, logvar, free_bits)
    return error + kl_weight * divergence, error, divergence
