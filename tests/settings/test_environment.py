"""Overrides by environment variables, and how the parts of a config come together."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.errors import ConfigError
from sda_daemon.settings import Settings
from sda_daemon.settings.changes import changes
from sda_daemon.settings.environment import variable_for
from sda_daemon.settings.loading import LoadedConfig, find_config, parse_config, state_folder, user_config
from sda_daemon.settings.source import expand_path
from sda_daemon.settings.structure import keys_of
from sda_daemon.settings.writing import write_effective

GOOD = "models_dir: m\nwatch:\n  - path: runs\n"


def load(text: str = GOOD, **environment: str) -> LoadedConfig:
    """Check a config that lies in /etc/sda."""
    return parse_config(text.encode(), Path("/etc/sda/c.yaml"), environment)


def problems(text: str = GOOD, **environment: str) -> str:
    """Return what is wrong."""
    with pytest.raises(ConfigError) as caught:
        load(text, **environment)
    return str(caught.value)


def test_a_variable_overrides_the_file_and_the_default() -> None:
    """Text, numbers, durations, sizes, null, and values inside lists."""
    settings = load(
        GOOD + "workers: 1\n",
        SDA_DAEMON__WORKERS="4",
        SDA_DAEMON__LOGGING__LEVEL="debug",
        SDA_DAEMON__WATCH__0__SETTLE_S="1m",
        SDA_DAEMON__CONVERSION__MEMORY_LIMIT="null",
        SDA_DAEMON__METADATA__NAME="{{ run }}",
        SDA_DAEMON__STATE_DIR="~/state",
        HOME="/home/me",
    ).settings
    assert (settings.workers, settings.logging.level, settings.watch[0].settle_s) == (4, "debug", 60.0)
    assert settings.conversion.memory_limit is None
    assert (settings.metadata.name, settings.state_dir) == ("{{ run }}", Path("/home/me/state"))


def test_every_scalar_can_be_overridden() -> None:
    """Generic over the schema: with its own default each key loads, and is marked as coming from the variable."""

    def scalars(section: type, before: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], object]]:
        found: list[tuple[tuple[str | int, ...], object]] = []
        for key in keys_of(section):
            place = (*before, key.name)
            if key.is_scalar:
                found.append((place, "/some/where" if key.is_required else key.default))
            elif key.inner is not None and key.name != "rules":
                found += scalars(key.inner, (*place, 0) if key.is_list else place)
        return found

    found = scalars(Settings)
    assert len(found) > 20
    for place, value in found:
        variable = variable_for(place)
        written = "null" if value is None else str(value)
        loaded = load(**{variable: written})
        assert loaded.origins[place].source == variable
        assert f"# from {variable}" in write_effective(loaded.settings, loaded.origins)


def test_a_misspelt_variable_is_an_error() -> None:
    """It names the variable that was probably meant."""
    assert problems(SDA_DAEMON__LOGING__LEVEL="debug") == (
        "SDA_DAEMON__LOGING__LEVEL: there is no such key; did you mean 'SDA_DAEMON__LOGGING__LEVEL'?"
    )


@pytest.mark.parametrize(
    ("variable", "part"),
    [
        ("SDA_DAEMON__LOGGING", "this is not a single value"),
        ("SDA_DAEMON__WATCH", "this is not a single value"),
        ("SDA_DAEMON__WATCH__0", "this is not a single value"),
        ("SDA_DAEMON__WATCH__3__PATH", "there is no item 3; watch has 1 in the file"),
        ("SDA_DAEMON__WORKERS__X", "SDA_DAEMON__WORKERS is a single value"),
        ("SDA_DAEMON__0", "0 is no key"),
        ("SDA_DAEMON__", "there is no such key"),
    ],
)
def test_a_variable_that_leads_nowhere_is_an_error(variable: str, part: str) -> None:
    """It says why."""
    assert problems(**{variable: "x"}).startswith(f"{variable}: {part}")


def test_a_wrong_value_names_the_variable() -> None:
    """Not a line of the file."""
    assert problems(SDA_DAEMON__WORKERS="many") == "SDA_DAEMON__WORKERS: workers: 'many' must be a whole number"


@given(st.dictionaries(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789", max_size=20).map("SDA_DAEMON__".__add__),
                       st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=3))  # fmt: skip
def test_no_variable_makes_it_fail_otherwise(environment: dict[str, str]) -> None:
    """Whatever the variables are, the config loads or a ConfigError says why not."""
    with contextlib.suppress(ConfigError):
        assert load(**environment).settings.models_dir


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from([*Settings.model_fields, "path", "x", "level", "name", "match"]), inner,
                        max_size=4), max_leaves=12))  # fmt: skip
def test_no_content_makes_it_fail_otherwise(content: object) -> None:
    """Whatever the YAML holds, the config loads or a ConfigError says why not."""
    with contextlib.suppress(ConfigError):
        assert load(yaml.safe_dump(content)).settings.models_dir


def test_aliases_that_multiply_are_no_trouble() -> None:
    """A “billion laughs” document and one that contains itself are refused like any other wrong key."""
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    assert "a59: there is no such key" in problems(GOOD + laughs)
    assert "x: there is no such key" in problems(GOOD + "x: &x [*x]\n")


def test_anchors_and_merge_keys_work() -> None:
    """Two watched folders can share their settings."""
    text = "models_dir: m\nwatch:\n  - &usual\n    path: a\n    settle_s: 9s\n  - <<: *usual\n    path: b\n"
    watches = load(text).settings.watch
    assert [(watch.path.name, watch.settle_s) for watch in watches] == [("a", 9.0), ("b", 9.0)]


def test_a_section_with_all_its_lines_commented_out_has_its_defaults() -> None:
    """In YAML it is null."""
    settings = load(GOOD + "logging:\n  # level: debug\nrules:\nmetadata:\n").settings
    assert (settings.logging.level, settings.rules) == ("info", ())


def test_show_gives_a_config_that_is_the_same() -> None:
    """What `config show` prints loads to the same settings; defaults are marked, what was given is not."""
    text = (
        GOOD + "workers: 2\nrules:\n  - match: 'a/*'\n    when: epoch > 3\n    metadata: {tags: ['x, y', \"it's\"]}\n"
    )
    loaded = load(text)
    shown = write_effective(loaded.settings, loaded.origins)
    assert load(shown).settings == loaded.settings
    assert "\nworkers: 2\n" in shown
    assert any(line.startswith("stop_grace_s: 30s") and line.endswith("# default") for line in shown.splitlines())


def test_changes_are_named() -> None:
    """One line for each setting that differs, one for each watched folder that has come or gone."""
    old = load(GOOD + "workers: 2\n").settings
    new = load("models_dir: n\nwatch:\n  - path: runs\n    settle_s: 9s\n  - path: more\nworkers: 4\n").settings
    assert changes(old, new) == (
        "models_dir: '/etc/sda/m' → '/etc/sda/n'",
        "watch[/etc/sda/runs].settle_s: 2.0 → 9.0",
        "workers: 2 → 4",
        "watch[/etc/sda/more]: added",
    )
    assert changes(old, load("models_dir: m\nwatch: [{path: more}]\n").settings) == (
        "watch[/etc/sda/runs]: removed",
        "watch[/etc/sda/more]: added",
    )
    assert changes(old, old) == ()


# --- places -----------------------------------------------------------------------------------------


def test_the_search_order(tmp_path: Path) -> None:
    """The given file, then the variable, then the user's; without any, the message names the places."""
    home = tmp_path / "config"
    environment = {"XDG_CONFIG_HOME": str(home)}
    with pytest.raises(ConfigError, match=str(home)):
        find_config(None, environment)
    usual = user_config(environment)
    assert usual == home / "sda-daemon" / "config.yaml"
    usual.parent.mkdir(parents=True)
    usual.write_text(GOOD)
    assert find_config(None, environment) == usual
    environment["SDA_DAEMON_CONFIG"] = "/by/variable.yaml"
    assert find_config(None, environment) == Path("/by/variable.yaml")
    assert find_config(Path("given.yaml"), environment) == Path("given.yaml")


def test_paths_are_relative_to_the_file_and_expand() -> None:
    """`~`, `${VAR}`, `${VAR:-default}` and `..`."""
    environment = {"HOME": "/home/me", "DATA": "/data"}
    given = ["m", "../m", "~/m", "${DATA}/m", "${NONE:-/x}/m", "/abs/./m"]
    paths = [str(expand_path(text, Path("/etc/sda"), environment)) for text in given]
    assert paths == ["/etc/sda/m", "/etc/m", "/home/me/m", "/data/m", "/x/m", "/abs/m"]


def test_the_state_folder() -> None:
    """The configured one, else systemd's, else one of its own for each library."""
    settings = load().settings
    assert state_folder(load(GOOD + "state_dir: s\n").settings, {}) == Path("/etc/sda/s")
    assert state_folder(settings, {"STATE_DIRECTORY": "/var/lib/sda:/other"}) == Path("/var/lib/sda")
    other = load("models_dir: other\nwatch: [{path: runs}]\n").settings
    assert state_folder(settings, {}) != state_folder(other, {})
