"""b36: the daemon's own folders are known by what they are, however they are written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sda_daemon.intake.scan import CheckpointNames, CheckpointScan
from sda_daemon.settings.exclusion import Exclusion, is_at_or_below


def found(root: Path, names: CheckpointNames) -> list[str]:
    """Return what a scan takes, relative to the watched folder; events must say the same."""
    paths = [path for path, _ in CheckpointScan(str(root), str(root), names)]
    everything = [path for path in root.rglob("*") if path.is_file()]
    assert sorted(paths) == sorted(str(path) for path in everything if names.matches(str(root), str(path)))
    return sorted(os.path.relpath(path, root) for path in paths)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A watched folder with runs, a library and a folder of done checkpoints."""
    root = tmp_path / "runs"
    for name in ("a/x.pt", "done/y.pt", "done/deep/z.pt", "library/model.sda", "library/train/w.pt", "done-not/v.pt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    return root


def test_a_folder_is_at_or_below_itself_and_those_above(runs: Path, tmp_path: Path) -> None:
    """By identity through links; by its resolved path where it is not there yet."""
    (tmp_path / "way").symlink_to("runs/done")
    assert is_at_or_below(str(runs / "done" / "deep"), str(tmp_path / "way"))
    assert is_at_or_below(str(tmp_path / "way"), str(runs))
    assert is_at_or_below(str(tmp_path / "way" / "not" / "yet"), str(runs / "done"))
    assert is_at_or_below(str(runs / "later" / "x"), str(runs / "later"))
    assert not is_at_or_below(str(runs), str(runs / "done"))
    assert not is_at_or_below(str(runs / "done-not"), str(runs / "done"))
    assert is_at_or_below("/a/b/../c", "/a/c")


@pytest.mark.parametrize("way", ["its path", "a link to it", "another spelling"])
def test_own_folders_below_a_watch_are_passed_over(runs: Path, tmp_path: Path, way: str) -> None:
    """Whatever path the config has for it."""
    (tmp_path / "link").symlink_to("runs/done")
    written = {"its path": runs / "done", "a link to it": tmp_path / "link", "another spelling": runs / "a/../done"}[
        way
    ]
    names = CheckpointNames(("*",), (), (str(written), str(runs / "library")))
    assert found(runs, names) == ["a/x.pt", "done-not/v.pt"]
    assert found(runs / "done", names) == ["deep/z.pt", "y.pt"], "who watches it, or in it, means it"
    assert found(runs / "library", names) == ["train/w.pt"], "models are never checkpoints"


def test_a_folder_that_comes_later_counts(runs: Path) -> None:
    """The first checkpoint that is moved away makes the folder."""
    names = CheckpointNames(("*.pt",), (), str(runs / "later"))
    assert names.matches(str(runs), str(runs / "later2" / "x.pt"))
    assert not names.matches(str(runs), str(runs / "later" / "x.pt"))
    (runs / "later").mkdir()
    (runs / "later" / "x.pt").write_bytes(b"1")
    assert not names.matches(str(runs), str(runs / "later" / "x.pt"))
    (runs / "later").rename(runs / "other")
    assert names.matches(str(runs), str(runs / "other" / "x.pt"))


def test_links_into_own_folders_are_not_followed(runs: Path) -> None:
    """A link to a checkpoint that was moved away is none; one to elsewhere is."""
    (runs / "a" / "done.pt").symlink_to("../done/y.pt")
    (runs / "a" / "deep.pt").symlink_to(runs / "done" / "deep" / "z.pt")
    (runs / "a" / "good.pt").symlink_to("../done-not/v.pt")
    names = CheckpointNames(("*.pt",), (), (str(runs / "done"), str(runs / "library")))
    assert found(runs, names) == ["a/good.pt", "a/x.pt", "done-not/v.pt"]


@pytest.mark.parametrize("ending", [".sda", ".distill", ".distillgan", ".SDA"])
def test_a_model_file_is_never_a_checkpoint(ending: str) -> None:
    """Of no generation, whatever the patterns."""
    assert not CheckpointNames(("*", f"*{ending}")).matches("/drop", f"/drop/x{ending}")


def test_bind_mounts_lead_to_the_same_folder(runs: Path, tmp_path: Path) -> None:
    """The library, mounted into a watched folder under another name, is not looked into."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no namespaces here, in which something could be mounted")
    library = tmp_path / "elsewhere"
    library.mkdir()
    (library / "checkpoint.pt").write_bytes(b"1")
    (runs / "mounted").mkdir()
    program = """
import sys
from sda_daemon.settings.exclusion import is_at_or_below
from sda_daemon.intake.scan import CheckpointNames, CheckpointScan
runs, library = sys.argv[1:]
names = CheckpointNames(("*.pt",), (), (library,))
assert [p for p, _ in CheckpointScan(runs + "/mounted", runs, CheckpointNames(("*.pt",)))], "it is mounted"
assert not [p for p, _ in CheckpointScan(runs, runs, names) if "mounted" in p]
assert not names.matches(runs, runs + "/mounted/checkpoint.pt")
assert is_at_or_below(runs + "/mounted/x", library)
"""
    script = 'mount --bind "$1" "$2/mounted" && exec "$3" -c "$4" "$2" "$1"'
    command = [*unshare, "sh", "-c", script, "sh", str(library), str(runs), sys.executable, program]
    subprocess.run(command, check=True)


def test_folders_that_are_not_there() -> None:
    """Then their paths are all that there is to go by."""
    exclusion = Exclusion("/drop", ("/drop/more/done", "/drop/done"))
    assert not exclusion.has("/drop/a")
    assert exclusion.holds("/drop/done/deep")
    assert not Exclusion("/drop", ()).holds("/drop/done")
