"""Finding the training application and its folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sda_daemon.errors import NoApplicationError
from sda_daemon.settings.advice import advice_on
from sda_daemon.settings.application import find_application, generation_of
from sda_daemon.settings.loading import config_beside, load_config, parse_config, write_new_config
from tests.conftest import SAMPLES
from tests.neighbours import LARGE, NO_FILES

CONFIG = """
[general]
project_name = "Distill"

[paths]
datasets = "data/sets"
models = "/srv/models"
presets = "presets"
"""


def library(folder: Path, *names: str, version: int | None = None) -> Path:
    """Make a models folder with files of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    if version is not None:
        (folder / "model_library.json").write_text(json.dumps({"version": version, "models": {}}))
    return folder


def test_its_config_tells_where_its_folders_are(tmp_path: Path) -> None:
    """Relative to the config; what it does not tell is where the application has it by default."""
    (tmp_path / "config.toml").write_text(CONFIG)
    for place in (tmp_path, tmp_path / "config.toml", tmp_path / "data" / "models" / "not" / "yet"):
        found = find_application(place)
        assert (found.home, found.config) == (tmp_path, tmp_path / "config.toml")
        assert found.datasets == tmp_path / "data" / "sets"
        assert found.models == Path("/srv/models")
        assert found.presets == tmp_path / "presets"
        assert found.history == tmp_path / "data" / "history"
        assert found.generation == "auto"


def test_a_project_without_a_config_has_the_defaults(tmp_path: Path) -> None:
    """Its package is known by name; other projects and other configs on the way are passed over."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "small-dataset-audio"\n')
    inner = tmp_path / "src" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "src" / "pyproject.toml").write_text('[project]\nname = "another"\n')
    (tmp_path / "src" / "config.toml").write_text("not TOML at all [")
    found = find_application(inner)
    assert (found.home, found.config, found.models) == (tmp_path, None, tmp_path / "data" / "models")
    assert found.generation == "sda"


@pytest.mark.parametrize(
    ("project", "names", "version", "generation"),
    [
        ("distill", ("a.distill",), 1, "distill"),
        ("distill", ("a.distillgan",), 1, "distillgan"),
        ("distill", (), 2, "distillgan"),
        ("distill", ("a.distill", "b.distill"), 2, "distillgan"),
        ("distill 0.9.1", (), None, "distill"),
        ("distill 1.1.0", (), None, "distillgan"),
        ("distill 1.10.0", ("a.sda",), 1, "distillgan"),
        ("distill", (), None, "auto"),
        ("small_dataset_audio", ("a.distill",), 1, "sda"),
        ("", ("a.distill", "b.sda", "c.distill"), 1, "distill"),
        ("", (".hidden.sda", "readme.txt"), 1, "auto"),
    ],
)
def test_the_generation(
    tmp_path: Path, project: str, names: tuple[str, ...], version: int | None, generation: str
) -> None:
    """By the package; between the two of one package by the library, then by the version."""
    (tmp_path / "config.toml").write_text("[paths]\nmodels = 'm'\n")
    if project:
        name, _, number = project.partition(" ")
        (tmp_path / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\n' + f'version = "{number}"\n' * bool(number)
        )
    library(tmp_path / "m", *names, version=version)
    assert find_application(tmp_path).generation == generation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no config.toml of the training application in "),
        ("[paths\n", "is not valid TOML"),
        ("paths = 3\n", r"\[paths\] must hold folders, but it is 3"),
        ("[paths]\nmodels = 3\n", "models must be a folder, but it is 3"),
        ("[paths]\nhistory = ''\n", "history must be a folder, but it is ''"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str | None, message: str) -> None:
    """With the file and the value."""
    if text is not None:
        (tmp_path / "config.toml").write_text(text)
    with pytest.raises(NoApplicationError, match=message):
        find_application(tmp_path)


def test_the_config_that_is_written_for_it(tmp_path: Path) -> None:
    """Valid, explained, with its folders; its runs in data sets and in the models folder are watched."""
    (tmp_path / "config.toml").write_text("[paths]\nmodels = 'my models'\n")
    path = tmp_path / "sda" / "c.yaml"
    write_new_config(path, config_beside(find_application(tmp_path)))
    settings = load_config(path, {}).settings
    assert settings.models_dir == tmp_path / "my models"
    assert [watch.path for watch in settings.watch] == [tmp_path / "data" / "datasets", tmp_path / "my models"]
    assert settings.application.presets == tmp_path / "data" / "presets"
    assert settings.application.history == tmp_path / "data" / "history"
    assert "# How conversions are run." in path.read_text()
    assert list(yaml.safe_load(path.read_text())["watch"][1]) == ["path"]


def test_a_library_of_another_generation_is_warned_of(tmp_path: Path) -> None:
    """Its files or its index say who is at home there; with as many of one's own, nothing is said."""
    raw = b"models_dir: m\nwatch: [{path: runs}]\n"

    def advice() -> list[str]:
        return [str(item) for item in advice_on(parse_config(raw, tmp_path / "c.yaml", {}).settings)]

    assert advice() == []
    library(tmp_path / "m", "a.sda")
    assert advice() == []
    library(tmp_path / "m", "b.distill", "c.distill", version=1)
    (told,) = advice()
    assert told.startswith(f"models_dir: in '{tmp_path}/m' another generation of the application is at home (2 of its ")
    assert "will not show the .sda files" in told
    library(tmp_path / "m", "d.sda", "e.sda")
    assert advice() == []
    library(tmp_path / "n", version=2)
    raw = raw.replace(b"m\n", b"n\n", 1)
    (told,) = advice()
    assert "(its index is of version 2)" in told


def test_the_samples() -> None:
    """What the application itself wrote."""
    home = SAMPLES / "application" / "distill"
    if not home.is_dir():
        pytest.skip("the real samples are not beside this repository")
    found = find_application(home / "data" / "models")
    assert (found.home, found.generation, found.presets) == (home, "distill", home / "data" / "presets")
    assert generation_of(SAMPLES / "application" / "distillgan" / "data" / "models") == "distillgan"


@pytest.mark.parametrize("name", NO_FILES | LARGE)
def test_b46_a_config_of_the_application_that_is_no_small_file(tmp_path: Path, name: str) -> None:
    """It is as good as none, or named; nothing is waited for."""
    (NO_FILES | LARGE)[name][0](tmp_path / "config.toml")
    with pytest.raises(NoApplicationError, match=r"config\.toml"):
        find_application(tmp_path)
