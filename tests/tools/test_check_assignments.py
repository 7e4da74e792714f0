"""The check that no attribute of another object is assigned, on small modules."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools.check_assignments import ADVICE, FOLDERS, main, violations

ROOT = Path(__file__).parents[2]
OF_OTHERS = [
    "other.x = 1",
    "other.x += 1",
    "other.x: int = 1",
    "del other.x",
    "a, other.x = 1, 2",
    "a, *other.x = [1, 2]",
    "[a, (b, other.x)] = 1, (2, 3)",
    "a = other.x = 1",
    "for other.x in range(3): pass",
    "with open(path) as other.x: pass",
    "a = [1 for other.x in range(3)]",
    "self.other.x = 1",
    "self.others[0].x = 1",
    "cls().x = 1",
    "type(self).x = 1",
    "self, other.x = 1, 2",
    "lambda: setattr(other, 'x', 1)",
    "setattr(self.other, name, 1)",
    "delattr(other, 'x')",
    "object.__setattr__(other, 'x', 1)",
    "object.__delattr__(other, 'x')",
    "other.__setattr__('x', 1)",
    "other.x = 1  # noqa: B010",
    "other.x = 1  # assigned:",
    "other.x = '# assigned: it is only a text'",
]
OWN = [
    "self.x = 1",
    "cls.x += 1",
    "self.x: int = 1",
    "del self.x",
    "self.x, (cls.y, *self.z) = 1, (2, 3)",
    "for self.x in range(3): pass",
    "with open(path) as self.x: pass",
    "setattr(self, name, 1)",
    "object.__setattr__(self, 'x', 1)",
    "super().__setattr__('x', 1)",
    "super().__delattr__('x')",
    "self.__setattr__('x', 1)",
    "other['x'] = 1",
    "other.x[0] = 1",
    "other.x(1)",
    "other = self.x",
    "a = other.x == 1",
    "call(x=1)",
    "getattr(other, 'x')",
    "other.setattr('x', 1)",
    "text = 'other.x = 1'",
    "other.x = 1  # assigned: the library has no other way",
    "other.x = 1  # noqa: B010  # assigned: the library has no other way",
]


@pytest.mark.parametrize("line", OF_OTHERS)
def test_an_attribute_of_another_object_is_not_assigned(line: str) -> None:
    """In whatever way, and wherever that stands."""
    assert violations(line) == [(1, line)]
    assert violations(f"class A:\n    def f(self):\n        {line}\n") == [(3, line)]


@pytest.mark.parametrize("line", OWN)
def test_everything_else_may_be(line: str) -> None:
    """Attributes of its own, items of anything, and what a reason stands beside."""
    assert violations(line) == []
    assert violations(f"class A:\n    def f(self):\n        {line}\n") == []


def test_a_line_is_told_once_and_lets_off_no_other() -> None:
    """Two targets are one line; a reason is one for its own line."""
    lines = ["a.x, a.y = 1, 2", "\f", "a.x = 1  # assigned: why", "a.x = 2"]
    assert violations("\n".join(lines)) == [(1, lines[0]), (4, lines[3])]


def test_what_is_found_is_told_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Path, line and text, and one sentence for all; nothing where there is nothing."""
    (tmp_path / "inner").mkdir()
    bad, good = tmp_path / "inner" / "bad.py", tmp_path / "good.py"
    bad.write_text("ü = 1\n\nother.x = 'ü'\nsetattr(other, 'x', 1)\n", encoding="utf-8")
    good.write_text("self.x = 1\n")
    assert main([str(good)]) == 0
    assert capsys.readouterr().out == ""
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{bad}:3: other.x = 'ü'",
        f"{bad}:4: setattr(other, 'x', 1)",
        ADVICE,
    ]
    assert main([str(good), str(bad)]) == 1


def test_a_folder_that_is_not_there_is_no_folder_without_faults(tmp_path: Path) -> None:
    """Renaming a room must not end the check of it."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        main([str(tmp_path / "nowhere")])
    assert all((ROOT / folder).is_dir() for folder in FOLDERS)


def test_it_is_part_of_lint_and_so_of_pre_commit() -> None:
    """One list of checks, whoever runs them."""
    (lint,) = re.findall(r"^lint: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert "tools/check_assignments.py" in lint
    before_commit = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [hook["entry"] for hook in before_commit["repos"][0]["hooks"]] == ["make lint"]


def test_it_is_a_script(tmp_path: Path) -> None:
    """As `make lint` calls it."""
    (tmp_path / "bad.py").write_text("other.x = 1\n")
    command = [sys.executable, str(ROOT / "tools" / "check_assignments.py"), "bad.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, f"bad.py:1: other.x = 1\n{ADVICE}\n", "")
