"""Checks that no attribute of another object is assigned: what an object holds is its own affair.

A target of `=`, `+=`, `:`, `del`, `for`, `with` or a comprehension that is an attribute must be one of `self` or `cls`
itself. `setattr`, `delattr`, `__setattr__` and `__delattr__` are held to the same. A line whose comment is
`# assigned: reason` is let off, if it gives a reason.

Usage: python tools/check_assignments.py [FOLDER OR FILE ...]
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOMS = ("daemon", "conversion", "intake", "library", "state", "watching")
FOLDERS = tuple(f"sda_daemon/{room}" for room in ROOMS)
ADVICE = (
    "An attribute is assigned by its own object only. Give the value to the constructor, call a method that is named "
    "for what happens, or return a new value (dataclasses.replace). Where a library leaves no other way, end the line "
    "with `# assigned: reason`."
)
_OWN = ("self", "cls")
_EXEMPTION = "# assigned:"
_FUNCTIONS = ("setattr", "delattr")
_METHODS = ("__setattr__", "__delattr__")


def main(arguments: Sequence[str]) -> int:
    """Print what is found in folders and files, and return the exit code: 1 if there is something.

    Raises:
        FileNotFoundError: there is no such folder or file.
        SyntaxError: a file is not Python.
    """
    found = 0
    for path in _files(arguments or FOLDERS):
        for line, text in violations(path.read_text(encoding="utf-8")):
            print(f"{path}:{line}: {text}")
            found += 1
    if found:
        print(ADVICE)
    return 1 if found else 0


def _files(paths: Sequence[str]) -> Iterator[Path]:
    """Yield the Python files of folders, in order, and files that are named themselves."""
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such folder or file")
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def violations(source: str) -> list[tuple[int, str]]:
    """Return number and text of the lines of a module that assign an attribute of another object, each line once.

    Raises:
        SyntaxError: it is not Python.
    """
    lines = source.split("\n")
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.expr))
    found = {node.lineno for node in nodes if _is_violation(node)}
    return [(number, lines[number - 1].strip()) for number in sorted(found - _exempted(source))]


def _is_violation(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return isinstance(node.ctx, ast.Store | ast.Del) and not _is_own(node.value)
    return isinstance(node, ast.Call) and _changes_other(node)


def _changes_other(call: ast.Call) -> bool:
    """Tell whether a call assigns or deletes an attribute of another object by its name."""
    function, first = call.func, call.args[:1]
    if isinstance(function, ast.Name) and function.id in _FUNCTIONS:
        return not any(map(_is_own, first))
    if isinstance(function, ast.Attribute) and function.attr in _METHODS:  # of its object, or of its first argument
        return not any(map(_is_own, [function.value, *first]))
    return False


def _is_own(owner: ast.expr) -> bool:
    """Tell whether an object is the one whose method this is: `self`, `cls` or `super()`."""
    if isinstance(owner, ast.Call):
        owner = owner.func
        return isinstance(owner, ast.Name) and owner.id == "super"
    return isinstance(owner, ast.Name) and owner.id in _OWN


def _exempted(source: str) -> set[int]:
    """Return the numbers of the lines that a comment lets off, with a reason."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    return {token.start[0] for token in comments if token.string.partition(_EXEMPTION)[2].strip()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
