"""Sliders: from positions to latent vectors, what is drawn, and the analysis as a dict."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.controls import AnalysisResult, describe_sliders, sliders_to_latent
from sda_daemon.controls.serialization import analysis_from_dict, analysis_to_dict
from sda_daemon.demo.checkpoints import made_up_analysis

POSITIONS = st.lists(st.integers(-10, 10), max_size=3)


@given(POSITIONS)
def test_positions_become_latent_vectors(positions: list[int]) -> None:
    """Z = mean + sum of position, step and component; missing positions are 0."""
    analysis = made_up_analysis()
    expected = analysis.pca_mean.astype(np.float64)
    for index, position in enumerate(positions):
        expected = expected + position * analysis.step_size[index] * analysis.pca_components[index]
    latent = sliders_to_latent(positions, analysis)
    assert latent.shape == (8,)
    assert latent.dtype == analysis.pca_mean.dtype
    np.testing.assert_allclose(latent, expected, rtol=1e-5)


def test_positions_beyond_the_ends_are_the_ends() -> None:
    """A slider cannot be pushed out of its track."""
    analysis = made_up_analysis()
    np.testing.assert_array_equal(sliders_to_latent([99, -99], analysis), sliders_to_latent([10, -10], analysis))


@pytest.mark.parametrize("positions", [[0, 0, 0, 0], [[1]], [float("nan")], [float("inf")]])
def test_impossible_positions(positions: Any) -> None:
    """More than there are sliders, or no numbers."""
    with pytest.raises(ValueError, match="position"):
        sliders_to_latent(positions, made_up_analysis())


def test_no_sliders_at_all() -> None:
    """An analysis without components is still a point in latent space."""
    analysis = made_up_analysis(count=0)
    np.testing.assert_array_equal(sliders_to_latent([], analysis), analysis.pca_mean)
    assert describe_sliders(analysis) == []


def test_sliders_are_described() -> None:
    """Label, range, step and zones in whole positions, never more than the zone holds."""
    analysis = dataclasses.replace(made_up_analysis(), component_labels=["Axis 1", "mine", "Axis 3"])
    first, second, third = describe_sliders(analysis)
    assert [slider.label for slider in (first, second, third)] == ["brightness", "mine", "Axis 3"]
    assert (first.minimum, first.maximum) == (-10, 10)
    assert first.step_size == pytest.approx(0.3)
    assert first.safe == (-6, 6)  # 2 / 0.3 is 6.67
    assert first.warning == (-10, 10)  # -3 / 0.3 is -10.0000002, the track ends there
    assert first.explained_variance_ratio == 0.5
    still = dataclasses.replace(analysis, step_size=np.zeros(3, dtype=np.float32))
    assert describe_sliders(still)[0].safe == (0, 0)


def test_the_dict_is_the_formats() -> None:
    """Exactly the fields and the version, arrays kept; back again it is the same."""
    analysis = made_up_analysis()
    values = analysis_to_dict(analysis)
    assert set(values) == {field.name for field in dataclasses.fields(AnalysisResult)} | {"version"}
    assert values["version"] == 1
    assert isinstance(values["pca_components"], np.ndarray)
    as_lists = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}
    for source in (values, as_lists):
        again = analysis_from_dict(source)
        for field in dataclasses.fields(AnalysisResult):
            np.testing.assert_array_equal(getattr(again, field.name), getattr(analysis, field.name))


def test_what_may_be_missing() -> None:
    """Five fields have defaults."""
    values = analysis_to_dict(made_up_analysis())
    for name in ("component_labels", "suggested_labels", "n_steps", "feature_correlations", "latent_dim"):
        del values[name]
    analysis = analysis_from_dict(values)
    assert (analysis.component_labels, analysis.suggested_labels, analysis.n_steps) == ([], [], 21)
    assert (analysis.feature_correlations, analysis.latent_dim) == ({}, 8)


def test_the_result_does_not_share_the_files_arrays() -> None:
    """Changing one does not change the other."""
    values = analysis_to_dict(made_up_analysis())
    analysis = analysis_from_dict(values)
    values["pca_mean"][:] = 99
    assert analysis.pca_mean.max() < 1


BOMB: list[Any] = [1.0]
for _ in range(40):
    BOMB = [BOMB] * 10

SICK: list[tuple[dict[str, Any], str]] = [
    ({"version": 2}, "version 2 is newer than supported version 1"),
    ({"version": "1"}, "no usable version"),
    ({"pca_mean": None}, "lacks pca_mean"),
    ({"pca_mean": ["x"]}, "pca_mean"),
    ({"pca_mean": [[1.0]]}, "pca_mean"),
    ({"pca_mean": np.zeros(5)}, r"expected \(3, 5\)"),
    ({"pca_mean": np.full(8, np.nan)}, "NaN"),
    ({"pca_mean": np.broadcast_to(np.float32(0), (2**40,))}, "1099511627776 numbers"),
    ({"pca_components": BOMB}, "nested more deeply"),
    ({"step_size": np.zeros(2)}, "step_size"),
    ({"n_active_components": "three"}, "n_active_components"),
    ({"n_active_components": float("inf")}, "n_active_components"),
    ({"component_labels": [BOMB]}, "component_labels"),
    ({"feature_correlations": [1]}, "feature_correlations"),
    ({"feature_correlations": {"a": ["x"]}}, "feature_correlations"),
]


@pytest.mark.parametrize(("changes", "reason"), SICK, ids=range(len(SICK)))
def test_sick_analyses_say_why(changes: dict[str, Any], reason: str) -> None:
    """Always a ValueError, always soon."""
    with pytest.raises(ValueError, match=reason):
        analysis_from_dict({**analysis_to_dict(made_up_analysis()), **changes})


def test_an_analysis_that_is_no_dict() -> None:
    """A list, say."""
    with pytest.raises(ValueError, match="list"):
        analysis_from_dict([1])  # type: ignore[arg-type]
