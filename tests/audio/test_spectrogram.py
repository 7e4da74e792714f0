"""Mel spectrograms against torchaudio's own answers, and the way back to sound."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sda_daemon.audio.spectrogram import AudioSpectrogram, SpectrogramConfig, mel_filterbank

REFERENCE = np.load(Path(__file__).parents[1] / "data" / "mel_reference.npz")
CONFIGS = ("default", "narrow")


def given(config: str) -> tuple[AudioSpectrogram, dict[str, Tensor]]:
    """The spectrogram of a reference config and torchaudio's arrays."""
    values = {
        key.removeprefix(f"{config}_"): REFERENCE[key]
        for key in REFERENCE.files
        if key.startswith(config) and not key.endswith("_config")
    }
    fields = ast.literal_eval(str(REFERENCE[f"{config}_config"]))
    return AudioSpectrogram(SpectrogramConfig(**fields)), {k: torch.from_numpy(v) for k, v in values.items()}


def magnitudes(spectrogram: AudioSpectrogram, waveform: Tensor) -> Tensor:
    return spectrogram._stft(waveform).abs()


def convergence(found: Tensor, original: Tensor) -> float:
    """Spectral convergence: 0 is perfect."""
    return float((found - original).norm() / original.norm())


@pytest.mark.parametrize("config", CONFIGS)
def test_the_filter_bank_is_torchaudios(config: str) -> None:
    """Within 1e-4, as is demanded; in fact the same numbers."""
    spectrogram, reference = given(config)
    assert (mel_filterbank(spectrogram.config) - reference["mel_filterbank"]).abs().max() < 1e-4


@pytest.mark.parametrize("config", CONFIGS)
def test_log_mel_is_torchaudios(config: str) -> None:
    """Within 1e-4."""
    spectrogram, reference = given(config)
    found = spectrogram.waveform_to_mel(reference["waveform"][:, None])
    assert found.shape == reference["log_mel"][:, None].shape
    assert (found[:, 0] - reference["log_mel"]).abs().max() < 1e-4


@pytest.mark.parametrize("config", CONFIGS)
def test_inverse_mel_is_nearer_to_the_original_than_torchaudios(config: str) -> None:
    """And nowhere negative."""
    spectrogram, reference = given(config)
    original = magnitudes(spectrogram, reference["waveform"])
    found = spectrogram.mel_to_linear(reference["log_mel"][:, None])
    assert found.shape == reference["linear_power"].shape
    assert found.min() >= 0
    theirs = convergence(reference["linear_power"].sqrt(), original)
    assert convergence(found.sqrt(), original) < 0.6 * theirs


@pytest.mark.parametrize(("config", "limit"), [("default", 0.22), ("narrow", 0.16)])
@pytest.mark.parametrize("seed", range(6))
def test_sound_is_near_the_original_whatever_the_seed(config: str, limit: float, seed: int) -> None:
    """Spectral convergence of the whole way, waveform to mel to waveform."""
    spectrogram, reference = given(config)
    torch.manual_seed(seed)
    waveform = spectrogram.mel_to_waveform(reference["log_mel"][:, None])
    frames = reference["log_mel"].shape[-1]
    assert waveform.shape == (1, 1, (frames - 1) * spectrogram.config.hop_length)
    original = magnitudes(spectrogram, reference["waveform"])
    assert convergence(magnitudes(spectrogram, waveform[:, 0]), original) <= limit


def test_more_starts_are_never_worse() -> None:
    """The best of several searches counts, for each sound of a batch on its own."""
    spectrogram, reference = given("narrow")
    mel = reference["log_mel"][:, None].repeat(2, 1, 1, 1)
    target = spectrogram.mel_to_linear(mel).sqrt()

    def distance(starts: int) -> Tensor:
        torch.manual_seed(3)
        waveform = spectrogram.mel_to_waveform(mel, iterations=16, starts=starts)
        return spectrogram._inconsistency(waveform[:, 0], target)

    assert (distance(5) <= distance(1)).all()
    with pytest.raises(ValueError, match="at least 1"):
        spectrogram.mel_to_waveform(mel, starts=0)


def test_gradients_flow() -> None:
    """A training may use the spectrogram as a layer; the gradient is that of finite differences."""
    config = SpectrogramConfig(sample_rate=8000, n_fft=64, hop_length=32, n_mels=8)
    spectrogram = AudioSpectrogram(config)
    spectrogram._window = spectrogram._window.double()
    spectrogram._made_filters = spectrogram._filters.double()
    waveform = torch.randn(1, 1, 96, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(spectrogram.waveform_to_mel, (waveform,))


def test_shapes() -> None:
    """One second in the default config is 128 by 94; batches; very short sounds."""
    spectrogram = AudioSpectrogram()
    assert spectrogram.get_mel_shape(48_000) == (128, 94)
    assert spectrogram.waveform_to_mel(torch.zeros(3, 1, 48_000)).shape == (3, 1, 128, 94)
    assert spectrogram.waveform_to_mel(torch.ones(1, 1, 10)).shape == (1, 1, 128, 1)
    assert spectrogram.mel_to_waveform(torch.zeros(1, 1, 128, 1)).shape == (1, 1, 0)
    silence = spectrogram.mel_to_waveform(torch.zeros(2, 1, 128, 5))
    assert silence.shape == (2, 1, 4 * 512)
    assert silence.abs().max() < 1e-3
    assert spectrogram.to("cpu") is spectrogram


@pytest.mark.parametrize("shape", [(48_000,), (1, 48_000), (1, 2, 48_000), (1, 1, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """With the shape in the message."""
    with pytest.raises(ValueError, match="shape"):
        AudioSpectrogram().waveform_to_mel(torch.zeros(shape))
    with pytest.raises(ValueError, match="shape"):
        AudioSpectrogram().mel_to_waveform(torch.zeros(1, 1, 64, 10))


def test_config_defaults_and_dicts() -> None:
    """The seven fields of the format; unknown keys are ignored."""
    expected = {
        "sample_rate": 48_000,
        "n_fft": 2048,
        "hop_length": 512,
        "n_mels": 128,
        "f_min": 0.0,
        "f_max": None,
        "power": 2.0,
    }
    assert SpectrogramConfig().to_dict() == expected
    assert list(SpectrogramConfig().to_dict()) == list(expected)
    assert SpectrogramConfig.from_dict({**expected, "n_mels": 64, "color": "red"}).n_mels == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_rate": 0},
        {"n_fft": 2.5},
        {"n_fft": 2**24},
        {"hop_length": True},
        {"hop_length": 4096},
        {"n_mels": "128"},
        {"n_mels": 2000},
        {"f_min": -1.0},
        {"f_min": 30_000.0},
        {"f_max": 0.0},
        {"f_max": float("nan")},
        {"power": 0.0},
        {"power": None},
    ],
)
def test_impossible_configs_are_named(changes: dict[str, Any]) -> None:
    """The field is in the message; nothing of that size is ever made."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        SpectrogramConfig.from_dict(changes)
