"""What a checkpoint's place tells of it. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest

from sda_daemon.errors import TemplateError
from sda_daemon.templates import ShallowPathError, checkpoint_facts, run_name, try_condition, try_number, try_text


@pytest.mark.parametrize(
    ("path", "watched", "name"),
    [
        ("/data/datasets/bells/training/checkpoints/checkpoint_epoch0003.pt", "/data/datasets", "bells"),
        ("/data/datasets/bells/training/checkpoints/checkpoint_epoch0003.pt", "/data/datasets/bells", "bells"),
        ("/data/datasets/bells/training/checkpoints/x.pt", "/data/datasets/bells/training/checkpoints", "bells"),
        ("/data/datasets/bells/Training/Checkpoints/x.pt", None, "bells"),
        ("/runs/rain/checkpoints/x.pt", "/runs", "rain"),
        ("/runs/rain/x.pt", "/runs", "rain"),
        ("/runs/rain/checkpoints/x.pt", "/runs/rain/checkpoints", "rain"),
        ("/drop/rain_take3.pt", "/drop", "rain_take3"),
        ("/drop/rain_epoch0190.pt", "/drop", "rain"),
        ("/drop/rain Epoch 190.ckpt", "/drop", "rain"),
        ("/drop/epoch12.pt", "/drop", "epoch12"),
        ("/drop/x.pt", None, "drop"),
        ("/x.pt", None, "x"),
        ("/models/train_20260203_140509/checkpoints/x.pt", "/models", "train_20260203_140509"),
    ],
)
def test_the_name_of_a_run(path: str, watched: str | None, name: str) -> None:
    """For each layout that the application has, and for folders into which people drop things."""
    assert run_name(PurePosixPath(path), PurePosixPath(watched) if watched else None) == name


@pytest.mark.parametrize(
    ("sidecar", "training", "name"),
    [
        ({"dataset": "bells"}, {}, "bells"),
        ({"dataset": {"name": "bells", "files": 6}}, {}, "bells"),
        ({}, {"dataset_path": "/data/datasets/bells/"}, "bells"),
        ({"run_name": "evening bells"}, {"dataset": "bells"}, "evening bells"),
        ({"dataset_name": "  "}, {"dataset_name": "bells"}, "bells"),
        ({"dataset": 7}, {"name": None}, "train_20260203_140509"),
        ({}, {}, "train_20260203_140509"),
    ],
)
def test_a_run_that_is_only_a_time_is_called_what_the_trainer_says(
    sidecar: dict[str, Any], training: dict[str, Any], name: str
) -> None:
    """The sidecar's word goes before the training config's; without any, the time stays. Other runs keep their name."""
    for folder, expected in (("train_20260203_140509", name), ("rain", "rain")):
        facts = checkpoint_facts(
            PurePosixPath(f"/models/{folder}/checkpoints/x.pt"),
            PurePosixPath("/models"),
            size_bytes=1,
            mtime_s=0.0,
            now=datetime(2026, 1, 1, tzinfo=UTC),
            host="studio",
            content={"sidecar": sidecar, "training": training},
        )
        assert facts["run"] == expected


def test_a_folder_that_someone_has_named_names_the_run() -> None:
    """`convert rain/` is not a drop folder."""
    facts = checkpoint_facts(
        PurePosixPath("/x/rain/a.pt"),
        PurePosixPath("/x/rain"),
        size_bytes=1,
        mtime_s=0.0,
        now=datetime(2026, 1, 1, tzinfo=UTC),
        host="studio",
        content={},
        is_watched=False,
    )
    assert facts["run"] == "rain"


def test_deep_folders_are_believed() -> None:
    """What the application's own layouts have is right; only far more than that is doubted, as what it is."""
    for template in ("{{ parts[-3] }}", "{{ parts[4] }}", "{{ parts[0] }}/{{ parts[-2] | upper }}"):
        try_text(template)
    try_condition("parts[-4] == 'datasets'")
    try_number("{{ parts[3] | length }}")
    for template in ("{{ parts[-9] }}", "{{ parts[7] }}"):
        with pytest.raises(ShallowPathError):
            try_text(template)
    with pytest.raises(TemplateError, match="has no 'uper'"):
        try_text("{{ parts[-3].uper }}")
