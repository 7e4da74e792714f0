"""The tests' own rule of who can run what."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.permissions import IS_ROOT, bound

ROOT = Path(__file__).parents[1]
TESTS = """
import os, pytest

@pytest.mark.needs_root("mounts something")
def test_of_root():
    assert os.geteuid() == 0

@pytest.mark.needs_user("root may read everything")
@pytest.mark.parametrize("number", [1, 2])
def test_of_user(number):
    assert os.geteuid() != 0

def test_of_all():
    pass

def test_of_nobody():
    pytest.skip("needs nobody: at all")
"""


def run_pytest(path: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest with this folder's rules on another file."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml", "--rootdir", ".", "-p", "tests.conftest"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *arguments, str(path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("processes", ["0", "2"])
def test_both_kinds_are_skipped_for_the_others_and_listed(tmp_path: Path, processes: str) -> None:
    """With the reasons and the names, at the end, whether the tests run in parallel or not."""
    path = tmp_path / "test_x.py"
    path.write_text(TESTS)
    code, text = run_pytest(path, "-n", processes)
    assert code == 0, text
    _, listed = text.split("tests that not every user can run", 1)
    lines = listed.splitlines()[1:]
    if IS_ROOT:
        assert "2 passed, 3 skipped" in text
        assert lines[:3] == [
            "skipped because they need root: none",
            "skipped because they need an ordinary user: 2",
            "  root may read everything:",
        ]
        assert [line.rpartition("::")[2] for line in lines[3:5]] == ["test_of_user[1]", "test_of_user[2]"]
    else:
        assert "3 passed, 2 skipped" in text
        assert lines[:2] == ["skipped because they need root: 1", "  mounts something:"]
        assert lines[2].endswith("::test_of_root")
        assert lines[3] == "skipped because they need an ordinary user: none"


def test_a_reason_is_wanted(tmp_path: Path) -> None:
    """A mark without one is a mistake."""
    path = tmp_path / "test_x.py"
    path.write_text(TESTS.replace('"mounts something"', ""))
    code, text = run_pytest(path)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "test_of_root: needs_root wants a reason" in text


def test_permissions_count_for_what_is_bound(tmp_path: Path) -> None:
    """Also for root a closed file is closed."""
    closed = tmp_path / "closed"
    closed.write_text("x")
    closed.chmod(0)
    program = "import sys; sys.exit(open(sys.argv[1]).read())"
    done = subprocess.run(bound([sys.executable, "-c", program, closed]), capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr
