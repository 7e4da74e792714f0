"""The analysis as the dict that checkpoints and model files hold (format: see docs/formats.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from sda_daemon.controls.analysis import DEFAULT_N_STEPS, AnalysisResult, FloatArray

ANALYSIS_VERSION = 1
_PER_COMPONENT = ("explained_variance_ratio", "safe_min", "safe_max", "warning_min", "warning_max", "step_size")


def analysis_to_dict(result: AnalysisResult) -> dict[str, Any]:
    """Return the fields of the analysis plus `version`; arrays stay numpy arrays."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {"version": ANALYSIS_VERSION, **values}


def analysis_from_dict(values: Mapping[str, Any]) -> AnalysisResult:
    """Build an analysis from a file's dict; arrays may be lists or arrays.

    `component_labels`, `suggested_labels`, `n_steps`, `feature_correlations` and `latent_dim` may be missing.

    Raises:
        ValueError: a newer version, a missing field, or shapes that do not fit together.

    """
    version = values.get("version", ANALYSIS_VERSION)
    if not isinstance(version, int) or version > ANALYSIS_VERSION:
        raise ValueError(f"analysis version {version} is newer than supported version {ANALYSIS_VERSION}")
    missing = [name for name in ("pca_components", "pca_mean", *_PER_COMPONENT) if values.get(name) is None]
    if missing:
        raise ValueError(f"the analysis lacks {', '.join(missing)}")
    components = _array(values, "pca_components", 2)
    count = int(values.get("n_active_components", components.shape[0]))
    mean = _array(values, "pca_mean", 1)
    if components.shape != (count, mean.shape[0]):
        raise ValueError(f"pca_components has the shape {components.shape}, expected ({count}, {mean.shape[0]})")
    arrays = {name: _array(values, name, 1) for name in _PER_COMPONENT}
    for name, array in arrays.items():
        if array.shape != (count,):
            raise ValueError(f"{name} has the shape {array.shape}, expected ({count},)")
    correlations = values.get("feature_correlations") or {}
    return AnalysisResult(
        pca_components=components,
        pca_mean=mean,
        n_active_components=count,
        component_labels=[str(label) for label in values.get("component_labels") or []],
        suggested_labels=[str(label) for label in values.get("suggested_labels") or []],
        n_steps=int(values.get("n_steps", DEFAULT_N_STEPS)),
        feature_correlations={str(key): [float(r) for r in row] for key, row in correlations.items()},
        latent_dim=int(values.get("latent_dim", mean.shape[0])),
        **arrays,
    )


def _array(values: Mapping[str, Any], name: str, dimensions: int) -> FloatArray:
    try:
        array = np.array(values[name])  # a copy: file contents must not change under the result
        if array.dtype.kind != "f":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array of numbers: {error}") from error
    if array.ndim != dimensions and array.size == 0:
        array = array.reshape((0,) * dimensions)
    if array.ndim != dimensions:
        raise ValueError(f"{name} has {array.ndim} dimensions, expected {dimensions}")
    return array
