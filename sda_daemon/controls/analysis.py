"""The result of a latent analysis: principal components of where training data lies in latent space."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

DEFAULT_N_STEPS = 21
DEFAULT_LATENT_DIM = 64

FloatArray = NDArray[np.floating]


@dataclasses.dataclass
class AnalysisResult:
    """What drives the sliders of a model; n_active is the number of components that matter.

    Attributes:
        pca_components: directions in latent space, `[n_active, latent_dim]`.
        pca_mean: where all sliders stand at zero, `[latent_dim]`.
        explained_variance_ratio: share of each component, `[n_active]`.
        n_active_components: number of sliders.
        component_labels: names given by the user, `[n_active]` or empty.
        suggested_labels: names found from audio features, `[n_active]` or empty.
        safe_min, safe_max: range in which sounds stay like the training data, `[n_active]`, in latent units.
        warning_min, warning_max: range beyond which sounds break, `[n_active]`, in latent units.
        step_size: latent units per slider position, `[n_active]`.
        n_steps: slider positions in all (21: from -10 to 10).
        feature_correlations: audio feature name to the correlation with each component.
        latent_dim: size of the latent space.
    """

    pca_components: FloatArray
    pca_mean: FloatArray
    explained_variance_ratio: FloatArray
    n_active_components: int
    component_labels: list[str]
    suggested_labels: list[str]
    safe_min: FloatArray
    safe_max: FloatArray
    warning_min: FloatArray
    warning_max: FloatArray
    step_size: FloatArray
    n_steps: int = DEFAULT_N_STEPS
    feature_correlations: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    latent_dim: int = DEFAULT_LATENT_DIM
