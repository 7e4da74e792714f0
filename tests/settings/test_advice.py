"""What is valid in a config, and yet hardly what is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from sda_daemon.settings.advice import advice_on
from sda_daemon.settings.loading import parse_config


def advice(folder: Path, text: str) -> list[str]:
    """Return what there is to say of a config file in a folder."""
    return [str(item) for item in advice_on(parse_config(text.encode(), folder / "c.yaml", {}).settings)]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("metadata: {name: '{{ parts[-9] }}'}", "metadata.name"),
        ("metadata: {dataset_file_count: '{{ parts[8] | length }}'}", "metadata.dataset_file_count"),
        ("metadata: {tags: [a, '{{ parts[7] }}']}", "metadata.tags[1]"),
        ("rules: [{match: a, metadata: {description: '{{ parts[-7] }}'}}]", "rules[0].metadata.description"),
        ("rules: [{match: a, skip: true}, {match: a, skip: true, when: \"parts[6] == 'x'\"}]", "rules[1].when"),
    ],
)
def test_templates_for_a_very_deep_tree(tmp_path: Path, text: str, key: str) -> None:
    """They are believed, and what they will fail for is told."""
    (told,) = advice(tmp_path, f"models_dir: m\nwatch: [{{path: runs}}]\n{text}\n")
    assert told.startswith(f"{key}: ")
    assert "has only 2 items" in told
    assert "a checkpoint that has not so many folders" in told


def test_nothing_to_say(tmp_path: Path) -> None:
    """Of templates that the application's layouts have folders for, and of a library beside the runs."""
    text = "models_dir: m\nwatch: [{path: runs}]\nmetadata: {name: '{{ parts[-3] }} {{ parts[0] }}'}\n"
    assert advice(tmp_path, text) == []


def test_trainings_inside_a_library_that_no_one_watches(tmp_path: Path) -> None:
    """A watched folder above does not look into it; watching the library itself does."""
    text = "models_dir: data/models\nwatch: [{path: data}]\n"
    (tmp_path / "data" / "models" / ".hidden" / "checkpoints").mkdir(parents=True)
    assert advice(tmp_path, text) == []
    for name in ("train_20260101_120000", "train_20260102_120000"):
        (tmp_path / "data" / "models" / name / "checkpoints").mkdir(parents=True)
    (told,) = advice(tmp_path, text)
    assert told == (
        f"watch[0].path: '{tmp_path}/data/models' lies in this folder and is not looked into, but there are trainings "
        "in it ('train_20260101_120000' and 1 more); to convert these too, watch it as well"
    )
    assert advice(tmp_path, "models_dir: data/models\nwatch: [{path: data}, {path: data/models}]\n") == []
