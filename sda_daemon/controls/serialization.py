"""The analysis as the dict that checkpoints and model files hold (format: see docs/formats.md)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sda_daemon.controls.analysis import DEFAULT_N_STEPS, AnalysisResult, FloatArray
from sda_daemon.wording import quoted

ANALYSIS_VERSION = 1
_MOST_NUMBERS = 10_000_000
_PER_COMPONENT = ("explained_variance_ratio", "safe_min", "safe_max", "warning_min", "warning_max", "step_size")


def analysis_to_dict(result: AnalysisResult) -> dict[str, Any]:
    """Return the fields of the analysis plus `version`; arrays stay numpy arrays."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {"version": ANALYSIS_VERSION, **values}


def analysis_from_dict(values: Mapping[str, Any]) -> AnalysisResult:
    """Build an analysis from a file's dict; arrays may be lists or arrays.

    `component_labels`, `suggested_labels`, `n_steps`, `feature_correlations` and `latent_dim` may be missing.

    Raises:
        ValueError: a newer version, a missing field, values that are no numbers, or shapes that do not fit together.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"an analysis must be a dict, not a {type(values).__name__}")
    version = values.get("version", ANALYSIS_VERSION)
    if isinstance(version, bool) or not isinstance(version, int):
        raise ValueError(f"the analysis has no usable version number, but {quoted(version)}")
    if version > ANALYSIS_VERSION:
        raise ValueError(f"analysis version {quoted(version)} is newer than supported version {ANALYSIS_VERSION}")
    missing = [name for name in ("pca_components", "pca_mean", *_PER_COMPONENT) if values.get(name) is None]
    if missing:
        raise ValueError(f"the analysis lacks {', '.join(missing)}")
    components = _array(values, "pca_components", 2)
    count = _whole(values, "n_active_components", components.shape[0])
    mean = _array(values, "pca_mean", 1)
    if components.shape != (count, mean.shape[0]):
        raise ValueError(f"pca_components has the shape {components.shape}, expected ({count}, {mean.shape[0]})")
    arrays = {name: _array(values, name, 1) for name in _PER_COMPONENT}
    for name, array in arrays.items():
        if array.shape != (count,):
            raise ValueError(f"{name} has the shape {array.shape}, expected ({count},)")
    return AnalysisResult(
        pca_components=components,
        pca_mean=mean,
        n_active_components=count,
        component_labels=_labels(values, "component_labels"),
        suggested_labels=_labels(values, "suggested_labels"),
        n_steps=_whole(values, "n_steps", DEFAULT_N_STEPS),
        feature_correlations=_correlations(values.get("feature_correlations") or {}),
        latent_dim=_whole(values, "latent_dim", mean.shape[0]),
        **arrays,
    )


def _whole(values: Mapping[str, Any], name: str, default: int) -> int:
    value = values.get(name)
    try:
        return default if value is None else int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be a whole number, not {quoted(value)}") from error


def _labels(values: Mapping[str, Any], name: str) -> list[str]:
    labels = values.get(name)
    if labels is None:
        return []
    if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{name} must be a list of texts, not {quoted(labels)}")
    return list(labels)


def _correlations(value: Any) -> dict[str, list[float]]:
    try:
        return {str(key): [float(r) for r in row] for key, row in value.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError("feature_correlations must be numbers per feature") from error


def _array(values: Mapping[str, Any], name: str, dimensions: int) -> FloatArray:
    value = values[name]
    _check_size(value, name, dimensions)
    try:
        array = np.array(value)  # a copy: file contents must not change under the result
        if array.dtype.kind != "f":
            array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is no array of numbers") from error
    if array.ndim != dimensions and array.size == 0:
        array = array.reshape((0,) * dimensions)
    if array.ndim != dimensions:
        raise ValueError(f"{name} has {array.ndim} dimensions, expected {dimensions}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are NaN or infinite")
    return array


def _check_size(value: Any, name: str, dimensions: int) -> None:
    """Refuse, before anything is copied, what promises far more numbers than it holds."""
    if isinstance(value, list | tuple):
        rows = value if dimensions == 2 else [value]
        sizes = [len(row) if isinstance(row, list | tuple | np.ndarray) else 1 for row in rows]
        nested = any(isinstance(item, list | tuple) for row in rows if isinstance(row, list | tuple) for item in row)
        if nested:
            raise ValueError(f"{name} is nested more deeply than {dimensions} dimensions")
        size = sum(sizes)
    else:
        size = math.prod(getattr(value, "shape", ()))
    if size > _MOST_NUMBERS:
        raise ValueError(f"{name} has {size} numbers (at most {_MOST_NUMBERS} are read)")
