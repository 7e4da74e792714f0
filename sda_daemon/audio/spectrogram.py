"""Mel spectrograms: what the models are trained on, and the way back to sound.

Agrees with torchaudio's MelSpectrogram (HTK mel scale, no filter normalisation, periodic Hann window,
centred frames with reflect padding), which the training application uses. The inverse is better than
torchaudio's InverseMelScale: its least-squares solution is refined under the constraint that power is
never negative. Phases are found by the fast Griffin-Lim algorithm (Perraudin, Balazs and Søndergaard,
"A fast Griffin-Lim algorithm", 2013).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

GRIFFIN_LIM_ITERATIONS = 64
GRIFFIN_LIM_MOMENTUM = 0.99
_REFINEMENTS = 100
_TINY = 1e-10


@dataclasses.dataclass
class SpectrogramConfig:
    """How a waveform becomes a mel spectrogram; the seven fields stored in every checkpoint and model.

    `sample_rate`, `f_min` and `f_max` are in Hz (`f_max` None means half the sample rate), `n_fft` and
    `hop_length` in samples; `power` is the exponent of the magnitude (2 for power).
    """

    sample_rate: int = 48_000
    n_fft: int = 2048
    hop_length: int = 512
    n_mels: int = 128
    f_min: float = 0.0
    f_max: float | None = None
    power: float = 2.0

    def to_dict(self) -> dict[str, Any]:
        """Return the seven fields as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SpectrogramConfig:
        """Build from a file's dict; unknown keys are ignored, missing ones take their default.

        Raises:
            ValueError: a field has an impossible value; the message names it.

        """
        config = cls(**{field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values})
        config.check()
        return config

    def check(self) -> None:
        """Raise ValueError if a field has an impossible value."""
        for name in ("sample_rate", "n_fft", "hop_length", "n_mels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 2**24:
                raise ValueError(f"spectrogram {name} must be a positive whole number, not {value!r}")
        for name in ("f_min", "power"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"spectrogram {name} must be a number from 0 up, not {value!r}")
        if self.power == 0:
            raise ValueError("spectrogram power must be larger than 0")
        top = self.f_max
        if top is not None and (
            isinstance(top, bool) or not isinstance(top, int | float) or not self.f_min < top < math.inf
        ):
            raise ValueError(f"spectrogram f_max must be a frequency above f_min, not {top!r}")

    @property
    def top_frequency(self) -> float:
        """Upper edge of the highest mel band, in Hz."""
        return self.sample_rate / 2 if self.f_max is None else float(self.f_max)


def mel_filterbank(config: SpectrogramConfig) -> Tensor:
    """Return the triangular mel filters, `[n_fft // 2 + 1, n_mels]`.

    HTK scale: mel = 2595 · log10(1 + f / 700) (Young et al., "The HTK Book"), peaks of 1.
    """
    bins = torch.linspace(0, config.sample_rate // 2, config.n_fft // 2 + 1, dtype=torch.float64)
    low, high = (2595.0 * math.log10(1.0 + f / 700.0) for f in (config.f_min, config.top_frequency))
    mels = torch.linspace(low, high, config.n_mels + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    widths = edges.diff()
    distance = edges[None, :] - bins[:, None]
    rising = -distance[:, :-2] / widths[:-1]
    falling = distance[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0.0).float()


class AudioSpectrogram:
    """Turns waveforms into log-mel spectrograms and back, on one device.

    Args:
        config: the spectrogram's parameters.

    Raises:
        ValueError: a parameter is impossible.

    """

    def __init__(self, config: SpectrogramConfig | None = None) -> None:
        self.config = config or SpectrogramConfig()
        self.config.check()
        self.device = torch.device("cpu")
        self._window = torch.hann_window(self.config.n_fft)
        self._filters = mel_filterbank(self.config)
        self._inverse: Tensor | None = None  # made when first needed: a pseudo-inverse is slow to compute

    def to(self, device: torch.device | str) -> AudioSpectrogram:
        """Move to a device; returns self."""
        self.device = torch.device(device)
        self._window = self._window.to(self.device)
        self._filters = self._filters.to(self.device)
        self._inverse = None if self._inverse is None else self._inverse.to(self.device)
        return self

    def get_mel_shape(self, num_samples: int) -> tuple[int, int]:
        """Return (n_mels, frames) of the spectrogram of `num_samples` samples."""
        return self.config.n_mels, num_samples // self.config.hop_length + 1

    def waveform_to_mel(self, waveform: Tensor) -> Tensor:
        """Return log1p of the power mel spectrogram.

        Args:
            waveform: `[batch, 1, samples]`, on this object's device. Gradients flow through.

        Returns:
            `[batch, 1, n_mels, samples // hop_length + 1]`.

        Raises:
            ValueError: the waveform has another shape or no samples.

        """
        if waveform.dim() != 3 or waveform.shape[1] != 1 or waveform.shape[2] == 0:
            raise ValueError(f"waveform must have the shape [batch, 1, samples], not {tuple(waveform.shape)}")
        spectrum = self._stft(waveform.squeeze(1)).abs().pow(self.config.power)
        mel = torch.matmul(spectrum.transpose(1, 2), self._filters).transpose(1, 2)
        return torch.log1p(mel).unsqueeze(1)

    def mel_to_linear(self, log_mel: Tensor) -> Tensor:
        """Return a linear spectrogram (magnitude to the power `power`) that fits a log-mel spectrogram.

        Args:
            log_mel: `[batch, 1, n_mels, frames]`, as `waveform_to_mel` gives; negative values count as 0.

        Returns:
            `[batch, n_fft // 2 + 1, frames]`, nowhere negative.

        """
        mel = torch.expm1(log_mel.squeeze(1).clamp(min=0.0))
        if self._inverse is None:
            self._inverse = torch.linalg.pinv(self._filters)
        linear = torch.matmul(mel.transpose(1, 2), self._inverse).transpose(1, 2).clamp(min=0.0)
        # Multiplicative updates (Lee and Seung 2001) keep it non-negative while the error only falls.
        linear = linear + _TINY
        target = torch.matmul(self._filters, mel)
        gram = torch.matmul(self._filters, self._filters.T)
        for _ in range(_REFINEMENTS):
            linear = linear * (target / (torch.matmul(gram, linear) + _TINY))
        return linear

    def mel_to_waveform(self, log_mel: Tensor, iterations: int = GRIFFIN_LIM_ITERATIONS) -> Tensor:
        """Return sound whose log-mel spectrogram is near the given one.

        Args:
            log_mel: `[batch, 1, n_mels, frames]`.
            iterations: Griffin-Lim iterations; more sound cleaner and take longer.

        Returns:
            `[batch, 1, (frames - 1) * hop_length]`.

        Raises:
            ValueError: the spectrogram has another shape.

        """
        if log_mel.dim() != 4 or log_mel.shape[1] != 1 or log_mel.shape[2] != self.config.n_mels:
            raise ValueError(
                f"mel must have the shape [batch, 1, {self.config.n_mels}, frames], not {tuple(log_mel.shape)}"
            )
        magnitude = self.mel_to_linear(log_mel).pow(1.0 / self.config.power)
        return self._griffin_lim(magnitude, iterations).unsqueeze(1)

    def _griffin_lim(self, magnitude: Tensor, iterations: int) -> Tensor:
        length = (magnitude.shape[-1] - 1) * self.config.hop_length
        if length == 0:
            return magnitude.new_zeros((magnitude.shape[0], 0))
        momentum = GRIFFIN_LIM_MOMENTUM / (1.0 + GRIFFIN_LIM_MOMENTUM)
        phases = torch.polar(torch.ones_like(magnitude), 2 * math.pi * torch.rand_like(magnitude))
        previous = torch.zeros_like(phases)
        for _ in range(iterations):
            rebuilt = self._stft(self._istft(magnitude * phases, length))
            phases = rebuilt - momentum * previous
            phases = phases / (phases.abs() + 1e-16)
            previous = rebuilt
        return self._istft(magnitude * phases, length)

    def _stft(self, waveform: Tensor) -> Tensor:
        reflectable = waveform.shape[-1] > self.config.n_fft // 2
        if not reflectable:  # shorter than half a window: there is not enough to reflect
            waveform = functional.pad(waveform, (0, 0))
        return torch.stft(
            waveform,
            self.config.n_fft,
            hop_length=self.config.hop_length,
            window=self._window,
            center=True,
            pad_mode="reflect" if reflectable else "constant",
            return_complex=True,
        )

    def _istft(self, spectrum: Tensor, length: int) -> Tensor:
        return torch.istft(
            spectrum, self.config.n_fft, hop_length=self.config.hop_length, window=self._window, length=length
        )
