"""Mel spectrograms: what the models are trained on, and the way back to sound.

Agrees with torchaudio's MelSpectrogram (HTK mel scale, no filter normalisation, periodic Hann window,
centred frames with reflect padding), which the training application uses. The inverse is better than
torchaudio's InverseMelScale: its least-squares solution is refined under the constraint that power is
never negative. Phases are found by the projections of Griffin and Lim ("Signal estimation from modified
short-time Fourier transform", 1984), relaxed (RAAR; Luke, "Relaxed averaged alternating reflections for
diffraction imaging", 2005), from several random starts: that escapes the poor solutions in which plain and
fast Griffin-Lim stay, whatever the seed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sda_daemon.wording import quoted

GRIFFIN_LIM_ITERATIONS = 64
GRIFFIN_LIM_STARTS = 4
_RELAXATION = 0.85
_PLAIN_SHARE = 8
"""One in so many iterations, at the end, is plain Griffin-Lim, which only ever comes nearer."""
_REFINEMENTS = 200
_TINY = 1e-10
_LARGEST_FFT = 2**15


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
                raise ValueError(f"spectrogram {name} must be a positive whole number, not {quoted(value)}")
        if self.n_fft > _LARGEST_FFT or self.n_mels > self.n_fft // 2 + 1:
            raise ValueError(
                f"spectrogram n_fft must be at most {_LARGEST_FFT} and n_mels at most n_fft // 2 + 1, "
                f"not {self.n_fft} and {self.n_mels}"
            )
        if self.hop_length > self.n_fft:
            raise ValueError(f"spectrogram hop_length must be at most n_fft ({self.n_fft}), not {self.hop_length}")
        for name in ("f_min", "power"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"spectrogram {name} must be a number from 0 up, not {quoted(value)}")
        if self.power == 0:
            raise ValueError("spectrogram power must be larger than 0")
        top = self.f_max
        if top is not None and (
            isinstance(top, bool) or not isinstance(top, int | float) or not self.f_min < top < math.inf
        ):
            raise ValueError(f"spectrogram f_max must be a frequency above f_min, not {quoted(top)}")
        if top is None and self.f_min >= self.sample_rate / 2:
            raise ValueError(f"spectrogram f_min must be below half the sample rate, not {self.f_min}")

    @property
    def top_frequency(self) -> float:
        """Upper edge of the highest mel band, in Hz."""
        return self.sample_rate / 2 if self.f_max is None else float(self.f_max)


def mel_filterbank(config: SpectrogramConfig) -> Tensor:
    """Return the triangular mel filters, `[n_fft // 2 + 1, n_mels]`.

    HTK scale: mel = 2595 · log10(1 + f / 700) (Young et al., "The HTK Book"), peaks of 1. In single precision
    throughout, as in training: a mel band's edge that is rounded otherwise shows in the spectrogram.
    """
    bins = torch.linspace(0, config.sample_rate // 2, config.n_fft // 2 + 1)
    low, high = (2595.0 * math.log10(1.0 + f / 700.0) for f in (config.f_min, config.top_frequency))
    mels = torch.linspace(low, high, config.n_mels + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    widths = edges.diff()
    distance = edges[None, :] - bins[:, None]
    rising = -distance[:, :-2] / widths[:-1]
    falling = distance[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0.0)


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
        self._made_filters: Tensor | None = None  # when first needed, like the next: not every user makes sound
        self._inverse: Tensor | None = None  # made when first needed: a pseudo-inverse is slow to compute

    def to(self, device: torch.device | str) -> AudioSpectrogram:
        """Move to a device; returns self."""
        self.device = torch.device(device)
        self._window = self._window.to(self.device)
        self._made_filters = None
        self._inverse = None if self._inverse is None else self._inverse.to(self.device)
        return self

    @property
    def _filters(self) -> Tensor:
        if self._made_filters is None:
            self._made_filters = mel_filterbank(self.config).to(self.device)
        return self._made_filters

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
        for _ in range(_REFINEMENTS):
            explained = torch.matmul(self._filters, torch.matmul(self._filters.T, linear))
            linear = linear * (target / (explained + _TINY))
        return linear

    def mel_to_waveform(
        self, log_mel: Tensor, iterations: int = GRIFFIN_LIM_ITERATIONS, starts: int = GRIFFIN_LIM_STARTS
    ) -> Tensor:
        """Return sound whose log-mel spectrogram is near the given one.

        Args:
            log_mel: `[batch, 1, n_mels, frames]`.
            iterations: of the search for phases; more sound cleaner and take longer.
            starts: how many searches from random phases are made, of which the best counts.

        Returns:
            `[batch, 1, (frames - 1) * hop_length]`.

        Raises:
            ValueError: the spectrogram has another shape, or `iterations` or `starts` is less than 1.
        """
        if log_mel.dim() != 4 or log_mel.shape[1] != 1 or log_mel.shape[2] != self.config.n_mels:
            raise ValueError(
                f"mel must have the shape [batch, 1, {self.config.n_mels}, frames], not {tuple(log_mel.shape)}"
            )
        if iterations < 1 or starts < 1:
            raise ValueError(f"iterations and starts must be at least 1, not {iterations} and {starts}")
        magnitude = self.mel_to_linear(log_mel).pow(1.0 / self.config.power)
        return self._find_waveform(magnitude, iterations, starts).unsqueeze(1)

    def _find_waveform(self, magnitude: Tensor, iterations: int, starts: int) -> Tensor:
        """Return the best waveform of several searches, for each spectrogram of the batch."""
        length = (magnitude.shape[-1] - 1) * self.config.hop_length
        if length == 0:
            return magnitude.new_zeros((magnitude.shape[0], 0))
        best = self._griffin_lim(magnitude, iterations, length)
        best_error = self._inconsistency(best, magnitude)
        for _ in range(starts - 1):
            waveform = self._griffin_lim(magnitude, iterations, length)
            error = self._inconsistency(waveform, magnitude)
            is_better = error < best_error
            best = torch.where(is_better[:, None], waveform, best)
            best_error = torch.where(is_better, error, best_error)
        return best

    def _griffin_lim(self, magnitude: Tensor, iterations: int, length: int) -> Tensor:
        """Search from random phases: reflect on both sets (right magnitudes, real waveforms) and average."""

        def with_magnitude(spectrum: Tensor) -> Tensor:
            return magnitude * spectrum / (spectrum.abs() + 1e-16)

        def of_a_waveform(spectrum: Tensor) -> Tensor:
            return self._stft(self._istft(spectrum, length))

        spectrum = torch.polar(magnitude, 2 * math.pi * torch.rand_like(magnitude))
        plain = iterations // _PLAIN_SHARE
        for _ in range(iterations - plain):
            right = with_magnitude(spectrum)
            reflected = 2 * right - spectrum
            twice = 2 * of_a_waveform(reflected) - reflected
            spectrum = (_RELAXATION / 2) * (twice + spectrum) + (1 - _RELAXATION) * right
        for _ in range(plain):
            spectrum = of_a_waveform(with_magnitude(spectrum))
        return self._istft(with_magnitude(spectrum), length)

    def _inconsistency(self, waveform: Tensor, magnitude: Tensor) -> Tensor:
        """How far the waveform's own magnitudes are from the wanted ones, `[batch]`."""
        distance: Tensor = torch.linalg.vector_norm(self._stft(waveform).abs() - magnitude, dim=(1, 2))
        return distance

    def _stft(self, waveform: Tensor) -> Tensor:
        reflectable = waveform.shape[-1] > self.config.n_fft // 2  # else there is not enough to reflect
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
