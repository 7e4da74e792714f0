"""From slider positions to latent vectors, and what an interface needs to draw the sliders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sda_daemon.controls.analysis import AnalysisResult, FloatArray


@dataclass(frozen=True, slots=True)
class Slider:
    """One slider, ready to draw. All ranges are in whole slider positions, 0 being the data's mean.

    Attributes:
        label: the user's name for it, else the suggested one, else "Axis 1", "Axis 2", ….
        minimum, maximum: ends of the track.
        safe: positions in which sounds stay like the training data.
        warning: positions within which sounds may still be usable.
        step_size: latent units per position.
        explained_variance_ratio: share of the variation in the training data that it controls.
    """

    label: str
    minimum: int
    maximum: int
    safe: tuple[int, int]
    warning: tuple[int, int]
    step_size: float
    explained_variance_ratio: float


def sliders_to_latent(positions: Sequence[int] | FloatArray, analysis: AnalysisResult) -> FloatArray:
    """Return the latent vector of slider positions, `[latent_dim]`.

    z = pca_mean + Σ position · step_size · component. Missing positions count as 0, positions beyond the
    ends of a slider are taken as its ends.

    Raises:
        ValueError: more positions than sliders, or a position that is not a number.
    """
    given = np.asarray(positions, dtype=np.float64)
    count = analysis.n_active_components
    if given.ndim != 1 or given.shape[0] > count:
        raise ValueError(f"expected up to {count} positions, not an array of shape {given.shape}")
    if not np.all(np.isfinite(given)):
        raise ValueError(f"slider positions must be numbers, not {given[~np.isfinite(given)][0]}")
    reach = analysis.n_steps // 2
    steps = np.zeros(count)
    steps[: given.shape[0]] = np.clip(given, -reach, reach)
    latent = analysis.pca_mean + (steps * analysis.step_size) @ analysis.pca_components
    return np.asarray(latent, dtype=analysis.pca_mean.dtype)


def describe_sliders(analysis: AnalysisResult) -> list[Slider]:
    """Return what an interface needs to draw the sliders, in order of importance."""
    return [_describe(analysis, index) for index in range(analysis.n_active_components)]


def _describe(analysis: AnalysisResult, index: int) -> Slider:
    reach = analysis.n_steps // 2
    step = float(analysis.step_size[index])

    def zone(low: FloatArray, high: FloatArray) -> tuple[int, int]:
        if step <= 0:
            return 0, 0
        first, last = np.ceil(low[index] / step), np.floor(high[index] / step)
        return int(np.clip(first, -reach, reach)), int(np.clip(last, -reach, reach))

    return Slider(
        label=_label(analysis, index),
        minimum=-reach,
        maximum=reach,
        safe=zone(analysis.safe_min, analysis.safe_max),
        warning=zone(analysis.warning_min, analysis.warning_max),
        step_size=step,
        explained_variance_ratio=float(analysis.explained_variance_ratio[index]),
    )


def _label(analysis: AnalysisResult, index: int) -> str:
    """The first label that says something; the training application fills in "Axis N" where it knows none."""
    default = f"Axis {index + 1}"
    for labels in (analysis.component_labels, analysis.suggested_labels):
        if index < len(labels) and labels[index].strip() not in ("", default):
            return labels[index].strip()
    return default
