"""When a config file has changed, and where a change can come from: without a daemon, with time as an argument."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.settings.loading import digest_of, load_config
from sda_daemon.settings.reload import GONE_S, QUIET_S, ConfigFile, ConfigTouched, Steadiness, way_to
from tests.daemon_process import eventually

GOOD = "models_dir: m\nwatch:\n  - path: runs\n"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 1.0)), max_size=20))
def test_a_content_is_steady_when_it_has_stayed_the_same(looks: list[tuple[str, float]]) -> None:
    """Exactly when all looks within the quiet time showed the same."""
    steadiness = Steadiness()
    now = 100.0
    shown: list[tuple[float, str]] = []
    for digest, pause_s in looks:
        now += pause_s
        shown.append((now, digest))
        since = now
        for at, other in reversed(shown):
            if other != digest:
                break
            since = at
        assert steadiness.observe(digest, now) == (now - since >= QUIET_S)


def test_an_empty_file_is_not_believed_at_once() -> None:
    """An editor that truncates first may take its time."""
    steadiness = Steadiness()
    empty = digest_of(b"")
    assert not steadiness.observe(empty, 10.0)
    assert not steadiness.observe(empty, 10.0 + GONE_S / 2)
    assert steadiness.observe(empty, 10.0 + GONE_S)


@pytest.fixture
def config_file(tmp_path: Path) -> ConfigFile:
    """A config file that was read; its clock is the test's."""
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    return ConfigFile(load_config(path, {}), {})


def ticks(config_file: ConfigFile, start: float, until: float) -> list[object]:
    """Look at the clock when the file asks for it; return every new config."""
    found: list[object] = []
    config_file.touched(start)
    while config_file.next_moment() <= until:
        found.append(config_file.poll(config_file.next_moment()))
    return [config for config in found if config is not None]


def test_only_another_content_counts(config_file: ConfigFile) -> None:
    """Touching the file, or writing the same into it, is no change; asking for it is."""
    config_file.path.write_text(GOOD)
    os.utime(config_file.path)
    assert ticks(config_file, 10.0, 20.0) == []
    config_file.ask(30.0)
    assert len(ticks(config_file, 30.0, 40.0)) == 1
    config_file.path.write_text(GOOD + "workers: 1\n")
    assert len(ticks(config_file, 50.0, 60.0)) == 1
    assert ticks(config_file, 70.0, 80.0) == []


def test_a_refused_version_is_told_of_once(config_file: ConfigFile, capfd: pytest.CaptureFixture[str]) -> None:
    """The state keeps the error until a valid version is there, even if that is the old one again."""
    config_file.path.write_text(GOOD + "workerz: 1\n")
    assert ticks(config_file, 10.0, 20.0) == []
    error = config_file.state.error
    assert error.endswith("config.yaml:4:1: workerz: there is no such key (with the value 1); did you mean 'workers'?")
    assert ticks(config_file, 20.0, 30.0) == []
    config_file.path.write_text(GOOD)
    (config,) = ticks(config_file, 30.0, 40.0)
    config_file.accept(config)  # type: ignore[arg-type]
    assert config_file.state.error == ""


def test_a_file_that_is_gone_for_a_moment_is_no_news(config_file: ConfigFile) -> None:
    """Delete and recreate; gone for good, it is refused with a reason."""
    config_file.path.unlink()
    assert ticks(config_file, 10.0, 10.0 + GONE_S / 2) == []
    config_file.path.write_text(GOOD + "workers: 1\n")
    assert len(ticks(config_file, 11.0, 20.0)) == 1
    assert config_file.state.error == ""
    config_file.path.unlink()
    assert ticks(config_file, 20.0, 40.0) == []
    assert config_file.state.error == f"{config_file.path} is gone"


def test_a_pipe_in_its_place_does_not_hang(config_file: ConfigFile) -> None:
    """It is refused like a missing file."""
    config_file.path.unlink()
    os.mkfifo(config_file.path)
    assert ticks(config_file, 10.0, 20.0) == []
    assert "is no regular file" in config_file.state.error


def test_the_way_to_a_file_leads_over_its_links(tmp_path: Path) -> None:
    """Every folder in which a change would lead elsewhere, and the name that matters there."""
    real = tmp_path / "real"
    (real / "v1").mkdir(parents=True)
    (real / "v1" / "config.yaml").write_text(GOOD)
    (real / "..data").symlink_to("v1")
    (real / "config.yaml").symlink_to("..data/config.yaml")
    (tmp_path / "etc").symlink_to(real)
    assert way_to(tmp_path / "etc" / "config.yaml") == {
        str(tmp_path): {"etc"},
        str(real): {"config.yaml", "..data"},
        str(real / "v1"): {"config.yaml"},
    }
    (tmp_path / "loop").symlink_to("loop")
    assert str(tmp_path) in way_to(tmp_path / "loop")


def test_changes_on_the_way_are_noticed(tmp_path: Path) -> None:
    """The file itself, and a link further up; not its neighbours."""
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "config.yaml").write_text(GOOD)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
    messages: list[object] = []
    config_file = ConfigFile(load_config(tmp_path / "config.yaml", {}), {})
    config_file.start(messages.append)
    try:
        messages.clear()
        (tmp_path / "v1" / "config.yaml").write_text(GOOD + "workers: 1\n")
        eventually(lambda: messages, "a message about the file")
        messages.clear()
        (tmp_path / "neighbour").write_text("x")
        (tmp_path / "v2").mkdir()
        (tmp_path / "..tmp").symlink_to("v2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        eventually(lambda: messages, "a message about the link")
        assert set(messages) == {ConfigTouched()}
    finally:
        config_file.stop()
