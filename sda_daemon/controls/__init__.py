"""Sliders: the latent analysis of a model, and how slider positions become latent vectors."""

from sda_daemon.controls.analysis import AnalysisResult
from sda_daemon.controls.mapping import Slider, describe_sliders, sliders_to_latent

__all__ = ["AnalysisResult", "Slider", "describe_sliders", "sliders_to_latent"]
