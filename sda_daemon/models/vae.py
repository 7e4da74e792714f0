"""The convolutional variational autoencoder that the checkpoints are made of.

Layer names and indices are those of the training application, so that its weights load
(layout: docs/formats.md). Inputs are log-mel spectrograms `[batch, 1, n_mels, time]`, padded at the bottom
and right to multiples of 16 on the way in and cropped on the way out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from sda_daemon.models.formats import Activation

CHANNELS = (1, 32, 64, 128, 256)
STRIDE = 16
"""Overall downsampling of the four stride-2 convolutions, in each direction."""
DEFAULT_MEL_SHAPE = (128, 94)
"""(n_mels, frames) of one second in the default spectrogram config."""

OutputActivation = Activation


class _Encoder(nn.Module):
    """Four strided convolutions, then a linear layer each for mean and log variance."""

    def __init__(self, latent_dim: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(CHANNELS):
            layers += [
                nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.Dropout2d(dropout),
            ]
        self.latent_dim = latent_dim
        self.convs = nn.Sequential(*layers)
        self.fc_mu: nn.Linear | None = None
        self.fc_logvar: nn.Linear | None = None

    def _init_linear(self, flatten_dim: int) -> None:
        """Make the linear layers for features of this size; the first forward pass does it by itself."""
        place = next(self.convs.parameters())
        self.fc_mu = nn.Linear(flatten_dim, self.latent_dim, device=place.device, dtype=place.dtype)
        self.fc_logvar = nn.Linear(flatten_dim, self.latent_dim, device=place.device, dtype=place.dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        features: Tensor = self.convs(x)
        rows, columns = features.shape[-2:]
        flat = features.flatten(1)
        if self.fc_mu is None or self.fc_logvar is None:
            self._init_linear(flat.shape[1])
        assert self.fc_mu is not None
        assert self.fc_logvar is not None
        if flat.shape[1] != self.fc_mu.in_features:
            raise ValueError(
                f"this model takes {self.fc_mu.in_features} features; a spectrogram of {rows * STRIDE} x "
                f"{columns * STRIDE} gives {flat.shape[1]}. Use chunks as long as in training"
            )
        return self.fc_mu(flat), self.fc_logvar(flat), (rows, columns)


class _Decoder(nn.Module):
    """A linear layer, then four strided transposed convolutions and the output activation."""

    def __init__(self, latent_dim: int, dropout: float, output_activation: OutputActivation) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = CHANNELS[::-1]
        for inputs, outputs in pairwise(channels):
            layers.append(nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1))
            if outputs != channels[-1]:
                layers += [nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout2d(dropout)]
        layers.append(nn.Sigmoid() if output_activation == "sigmoid" else nn.Softplus())
        self.latent_dim = latent_dim
        self.fc: nn.Linear | None = None
        self.deconvs = nn.Sequential(*layers)
        self.spatial: tuple[int, int] | None = None

    def _init_linear(self, spatial: tuple[int, int]) -> None:
        """Make the linear layer for feature maps of (rows, columns)."""
        place = next(self.deconvs.parameters())
        flatten_dim = CHANNELS[-1] * spatial[0] * spatial[1]
        self.fc = nn.Linear(self.latent_dim, flatten_dim, device=place.device, dtype=place.dtype)
        self.spatial = spatial

    def forward(self, z: Tensor) -> Tensor:
        if self.fc is None or self.spatial is None:
            self._init_linear(_spatial(DEFAULT_MEL_SHAPE))
        assert self.fc is not None
        assert self.spatial is not None
        output: Tensor = self.deconvs(self.fc(z).view(-1, CHANNELS[-1], *self.spatial))
        return output


class ConvVAE(nn.Module):
    """Convolutional VAE on log-mel spectrograms.

    Args:
        latent_dim: size of the latent space.
        dropout: probability of dropping a channel, in training only.
        output_activation: `softplus` (today's generation of the training application) or `sigmoid` (its first).

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, latent_dim: int = 64, dropout: float = 0.2, output_activation: OutputActivation = "softplus"
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, not {latent_dim}")
        if output_activation not in ("sigmoid", "softplus"):
            raise ValueError(f"output_activation must be 'sigmoid' or 'softplus', not {output_activation!r}")
        self._latent_dim = latent_dim
        self.output_activation: OutputActivation = output_activation
        self.mel_shape = DEFAULT_MEL_SHAPE
        """(n_mels, frames) to which `sample` and `decode` crop; set from the file by `load_model`."""
        self.encoder = _Encoder(latent_dim, dropout)
        self.decoder = _Decoder(latent_dim, dropout, output_activation)

    @property
    def latent_dim(self) -> int:
        """Size of the latent space."""
        return self._latent_dim

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mu, logvar), each `[batch, latent_dim]`, of spectrograms `[batch, 1, n_mels, time]`.

        Raises:
            ValueError: the spectrograms are of another size than those of the training.
        """
        height, width = x.shape[-2:]
        padded = functional.pad(x, (0, -width % STRIDE, 0, -height % STRIDE))
        mu, logvar, spatial = self.encoder(padded)
        if self.decoder.fc is None:
            self.decoder._init_linear(spatial)
            self.mel_shape = (height, width)
        return mu, logvar

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Draw latent vectors from the normal distribution that (mu, logvar) describe, differentiably."""
        return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)

    def decode(self, z: Tensor, target_shape: tuple[int, int] | None = None) -> Tensor:
        """Return spectrograms `[batch, 1, n_mels, time]` of latent vectors `[batch, latent_dim]`.

        Args:
            z: latent vectors.
            target_shape: (n_mels, time) to crop to; without it, all that the decoder makes.
        """
        output: Tensor = self.decoder(z)
        if target_shape is None:
            return output
        return output[..., : target_shape[0], : target_shape[1]]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (reconstruction, mu, logvar); the reconstruction has the shape of `x`."""
        mu, logvar = self.encode(x)
        z = self.reparameterize(mu, logvar)
        return self.decode(z, target_shape=(x.shape[-2], x.shape[-1])), mu, logvar

    @torch.no_grad()
    def sample(self, num_samples: int, device: torch.device | str = "cpu") -> Tensor:
        """Return spectrograms of random latent vectors, `[num_samples, 1, n_mels, frames]` (128 × 94 by default).

        Raises:
            ValueError: `num_samples` is less than 1.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, not {num_samples}")
        z = torch.randn(num_samples, self.latent_dim, device=device)
        return self.decode(z, target_shape=self.mel_shape)


def _spatial(mel_shape: tuple[int, int]) -> tuple[int, int]:
    return math.ceil(mel_shape[0] / STRIDE), math.ceil(mel_shape[1] / STRIDE)


# --- what a set of weights is ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WeightsLayout:
    """Sizes that follow from a set of weights.

    `rows` and `columns` are those of the innermost feature maps; `has_encoder_heads` is False for a model
    that has only ever been sampled from.
    """

    latent_dim: int
    rows: int
    columns: int
    has_encoder_heads: bool


def weights_layout(shapes: Mapping[str, tuple[int, ...]], n_mels: int) -> WeightsLayout:
    """Tell what ConvVAE a set of weights makes.

    Args:
        shapes: name to shape of every weight.
        n_mels: mel bands, which give the rows; the columns follow from the weights.

    Raises:
        ValueError: names are missing or left over, or a shape does not fit; the message says which.
    """
    decoder = shapes.get("decoder.fc.weight")
    if decoder is None:
        raise ValueError("it lacks decoder.fc.weight")
    if len(decoder) != 2 or 0 in decoder:
        raise ValueError(f"decoder.fc.weight has the shape {list(decoder)}, expected [flatten_dim, latent_dim]")
    flatten_dim, latent_dim = decoder
    rows = math.ceil(n_mels / STRIDE)
    columns, rest = divmod(flatten_dim, CHANNELS[-1] * rows)
    if rest or not columns:
        raise ValueError(
            f"decoder.fc.weight makes {flatten_dim} features, which is no multiple of {CHANNELS[-1] * rows} "
            f"({CHANNELS[-1]} channels, {rows} rows for {n_mels} mel bands)"
        )
    has_heads = "encoder.fc_mu.weight" in shapes
    layout = WeightsLayout(latent_dim, rows, columns, has_heads)
    expected = expected_shapes(layout)
    missing = sorted(expected.keys() - shapes.keys())
    if missing:
        raise ValueError(f"it lacks {_some(missing)}")
    surplus = sorted(shapes.keys() - expected.keys())
    if surplus:
        raise ValueError(f"it has weights that no ConvVAE has: {_some(surplus)}")
    for name, shape in expected.items():
        if tuple(shapes[name]) != shape:
            raise ValueError(f"{name} has the shape {list(shapes[name])}, expected {list(shape)}")
    return layout


@lru_cache(maxsize=16)
def expected_shapes(layout: WeightsLayout) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight of a ConvVAE of this layout."""
    flatten_dim = CHANNELS[-1] * layout.rows * layout.columns
    shapes: dict[str, tuple[int, ...]] = {
        "decoder.fc.weight": (flatten_dim, layout.latent_dim),
        "decoder.fc.bias": (flatten_dim,),
    }
    if layout.has_encoder_heads:
        for head in ("encoder.fc_mu", "encoder.fc_logvar"):
            shapes[f"{head}.weight"], shapes[f"{head}.bias"] = (layout.latent_dim, flatten_dim), (layout.latent_dim,)
    for number, (inputs, outputs) in enumerate(pairwise(CHANNELS)):
        shapes[f"encoder.convs.{4 * number}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"encoder.convs.{4 * number}.bias"] = (outputs,)
        shapes |= _norm_shapes(f"encoder.convs.{4 * number + 1}", outputs)
    for number, (inputs, outputs) in enumerate(pairwise(CHANNELS[::-1])):
        shapes[f"decoder.deconvs.{4 * number}.weight"] = (inputs, outputs, 3, 3)
        shapes[f"decoder.deconvs.{4 * number}.bias"] = (outputs,)
        if outputs != CHANNELS[0]:
            shapes |= _norm_shapes(f"decoder.deconvs.{4 * number + 1}", outputs)
    return shapes


def _norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    per_channel = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
    return {f"{name}.{part}": shape for part, shape in {**per_channel, "num_batches_tracked": ()}.items()}


def build_model(layout: WeightsLayout, output_activation: OutputActivation, dropout: float = 0.2) -> ConvVAE:
    """Return an untrained model with all linear layers in place."""
    model = ConvVAE(layout.latent_dim, dropout, output_activation)
    if layout.has_encoder_heads:
        model.encoder._init_linear(CHANNELS[-1] * layout.rows * layout.columns)
    model.decoder._init_linear((layout.rows, layout.columns))
    return model


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
