"""Renders the metadata of a model from templates over the facts of its checkpoint. Pure.

Templates run in Jinja2's sandbox: they can compute and format, but reach nothing outside the facts. A fact
that does not exist is an error, never an empty text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sda_daemon.errors import TemplateError
from sda_daemon.models.metadata import ModelMetadata
from sda_daemon.settings.schema import MetadataSettings

CHECKPOINTS_FOLDER = "checkpoints"
MAX_RENDERED_CHARS = 10_000
TEXT_FIELDS = ("name", "description", "dataset_name", "training_date")
NUMBER_FIELDS: dict[str, type[int] | type[float]] = {"dataset_file_count": int, "dataset_total_duration_s": float}


def run_name(path: PurePath) -> str:
    """Return the name of the training run: the nearest folder above that is not called `checkpoints`."""
    return next((parent.name for parent in path.parents if parent.name != CHECKPOINTS_FOLDER), "") or path.stem


def checkpoint_facts(
    path: PurePath,
    watch_root: PurePath | None,
    *,
    size_bytes: int,
    mtime_s: float,
    content: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what templates can use.

    Args:
        path: the checkpoint.
        watch_root: the watched folder that it lies in, if any.
        size_bytes: its size.
        mtime_s: its modification time, in seconds since 1970.
        content: what is in it: `epoch`, `step`, `train_loss`, `val_loss`, `kl_weight`, `latent_dim`,
            `training` (dict), `spectrogram` (dict), `analysis` (dict with `n_active_components` and `labels`,
            or None), `sidecar` (dict).

    """
    relative = path.relative_to(watch_root) if watch_root and path.is_relative_to(watch_root) else PurePath(path.name)
    return {
        "path": str(path),
        "relpath": str(relative),
        "file": path.name,
        "stem": path.stem,
        "folder": path.parent.name,
        "parts": list(relative.parent.parts),
        "run": run_name(path),
        "size_bytes": size_bytes,
        "mtime": datetime.fromtimestamp(mtime_s, UTC),
        **content,
    }


EXAMPLE_FACTS = checkpoint_facts(
    PurePath("/runs/field-recordings/checkpoints/checkpoint_epoch0190.pt"),
    PurePath("/runs"),
    size_bytes=18_873_246,
    mtime_s=1_770_000_000.0,
    content={
        "epoch": 190,
        "step": 3800,
        "train_loss": 0.31,
        "val_loss": 0.35,
        "kl_weight": 1.0,
        "latent_dim": 64,
        "training": {"latent_dim": 64, "batch_size": 16, "max_epochs": 200, "preset": "balanced"},
        "spectrogram": {"sample_rate": 48_000, "n_fft": 2048, "hop_length": 512, "n_mels": 128},
        "analysis": {"n_active_components": 12, "labels": ["brightness"]},
        "sidecar": {"epoch": 190, "train_loss": 0.31, "val_loss": 0.35},
    },
)
"""Facts of an imaginary checkpoint, on which templates are tried when a config is loaded."""


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


@lru_cache(maxsize=256)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


def render_text(field: str, source: str, facts: Mapping[str, Any]) -> str:
    """Render one template.

    Raises:
        TemplateError: it does not compile, names an unknown fact, leaves the sandbox or fails.

    """
    try:
        text = _compiled(source).render(facts)
    except TemplateSyntaxError as error:
        raise TemplateError(f"metadata.{field}: {source!r} is no template: {error.message}") from error
    except UndefinedError as error:
        known = ", ".join(sorted(facts))
        raise TemplateError(f"metadata.{field}: in {source!r}, {error.message}", f"Known facts: {known}") from error
    except SecurityError as error:
        raise TemplateError(f"metadata.{field}: {source!r} is not allowed: {error}") from error
    except Exception as error:
        raise TemplateError(f"metadata.{field}: {source!r} fails: {error}") from error
    if len(text) > MAX_RENDERED_CHARS:
        raise TemplateError(f"metadata.{field}: {source!r} gives {len(text)} characters, more than anyone would read")
    return " ".join(text.split()) if field != "description" else text.strip()


def render_metadata(settings: MetadataSettings, facts: Mapping[str, Any]) -> ModelMetadata:
    """Render all templates into a model's metadata.

    Raises:
        TemplateError: one of them fails; the message names the field.

    """
    values: dict[str, Any] = {field: render_text(field, getattr(settings, field), facts) for field in TEXT_FIELDS}
    for field, wanted in NUMBER_FIELDS.items():
        value = getattr(settings, field)
        if isinstance(value, str):
            text = render_text(field, value, facts)
            try:
                value = wanted(float(text or 0))
            except (ValueError, OverflowError) as error:
                raise TemplateError(f"metadata.{field}: {value!r} gives {text!r}, which is no number") from error
        values[field] = wanted(value)
    tags = [render_text("tags", tag, facts) for tag in settings.tags]
    unique = list(dict.fromkeys(tag for tag in tags if tag))
    values["name"] = values["name"] or facts["stem"]
    return ModelMetadata(**values, tags=unique)


def template_digest(settings: MetadataSettings) -> str:
    """Return a digest of the templates, by which a model shows what it was named by."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
