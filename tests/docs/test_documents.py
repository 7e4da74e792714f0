"""What the documents say is run: commands by a shell, Python by Python; generated ones must be current."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.console import COMMAND, environment
from tools.reference import command_helps, documents

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND_LINE = re.compile(r"sda-daemon ((?:[a-z][a-z-]*\b ?){1,3})")
_LATER = {"status", "retry", "config", "systemd-unit"}
"""Commands that are documented before every branch has them; a page says so with `<!-- needs: … -->`."""


@pytest.mark.parametrize("name", documents())
def test_generated_document_is_current(name: str) -> None:
    """If this fails, run `make docs` and commit what it changes."""
    assert (ROOT / name).read_text(encoding="utf-8") == documents()[name]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return language and text of every fenced block."""
    return [(match[1], match[2]) for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))]


def run_blocks(page: Path, folder: Path) -> str:
    """Run the `sh` and `python` blocks of a page in order, in one shell; return what they printed.

    `console` blocks need a terminal, a service manager or an hour, and are only read.
    """
    script = ["set -euo pipefail"]
    collected: list[str] = []
    for language, text in blocks(page):
        if language == "python":
            collected.append(text)
            (folder / "page.py").write_text("\n".join(collected))
            script.append(f"{sys.executable} page.py")
        elif language == "sh":
            script.append(text)
    path = f"{COMMAND.parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env={**environment(folder), "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_getting_started_works(tmp_path: Path) -> None:
    """Somebody who types the guide line by line ends with a library of two models."""
    printed = run_blocks(DOCS / "getting-started.md", tmp_path)
    assert "2 converted" in printed
    assert "restored 'rain epoch 3'" in printed
    assert sorted(path.name for path in (tmp_path / "models").glob("*.sda")) == ["rain_epoch_3.sda", "rain_epoch_7.sda"]


def make_library(folder: Path, small_checkpoints: Callable[..., Path]) -> None:
    """Put the library that the Python page talks of into a folder."""
    from sda_daemon.models import ModelMetadata, save_model_from_checkpoint

    run = folder / "runs" / "rain" / "checkpoints"
    run.mkdir(parents=True)
    shutil.copy(small_checkpoints(3), run / "checkpoint_epoch0003.pt")
    source = small_checkpoints(7, with_analysis=True)
    save_model_from_checkpoint(source, ModelMetadata(name="Rain on tin", tags=["keeper"]), folder / "models")
    (folder / "sda-daemon.yaml").write_text("models_dir: models\nwatch:\n  - path: runs\n")


def test_python_examples_work(tmp_path: Path, small_checkpoints: Callable[..., Path]) -> None:
    """Each example runs after the ones before it, and says what the page promises."""
    make_library(tmp_path, small_checkpoints)
    program = "\n".join(text for language, text in blocks(DOCS / "python.md") if language == "python")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True,
        timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for part in ("Rain on tin", "brightness: -10 to 10", "saved rain_early.sda", "broken - "):
        assert part in done.stdout


def test_operating_guide_works(tmp_path: Path, small_checkpoints: Callable[..., Path]) -> None:
    """Backup, verification and repair as the guide says."""
    make_library(tmp_path, small_checkpoints)
    printed = run_blocks(DOCS / "operating.md", tmp_path)
    assert "1 model: 1 ok" in printed
    assert (tmp_path / "backup" / "rain_on_tin.sda").exists()


def test_readme_snippet_works(tmp_path: Path, small_checkpoints: Callable[..., Path]) -> None:
    """The Python of the README, in a folder with a library."""
    make_library(tmp_path, small_checkpoints)
    (program,) = [text for language, text in blocks(ROOT / "README.md") if language == "python"]
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=250)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_documents_exist(page: Path) -> None:
    """No page names a command that there is not, but for those of branches that are not merged yet."""
    known = {path.removeprefix("sda-daemon").strip() for path, _ in command_helps()}
    groups = {path.split()[0] for path in known if " " in path}
    text = "\n".join(body for language, body in blocks(page) if language in ("sh", "console"))
    for match in _COMMAND_LINE.finditer(text):
        words = match[1].split()
        if words[0] in _LATER and words[0] not in known:
            continue
        name = " ".join(words[:2]) if words[0] in groups else words[0]
        assert name in known, f"{page.name} names `sda-daemon {name}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is to a file of the repository, and to a heading of it where it names one."""
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if target and "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


FOR_WHO_CHANGES_IT = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((DOCS / "decisions").glob("*.md"))]
_PATH = re.compile(r"`((?:[a-z_]+/)+(?:[a-z_]+(?:\.py)?)?|[a-z_]+\.py)(?:\.[a-z_]+)?`")
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", FOR_WHO_CHANGES_IT, ids=lambda page: page.name)
def test_what_the_pages_for_developers_name_is_there(page: Path) -> None:
    """Every file and folder in backticks, and every page that they link to."""
    text = page.read_text(encoding="utf-8")
    for name in _PATH.findall(text):
        places = [ROOT / name, ROOT / "sda_daemon" / name, ROOT / "sda_daemon" / f"{name}.py"]
        assert any(place.exists() for place in places), name
    for link in _LINK.findall(text):
        assert (page.parent / link).exists(), link


def test_the_list_of_rooms_is_the_contract() -> None:
    """In the same order, from top to bottom."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = [layer.split(" : ") for layer in contract[0]["layers"]]
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = [re.findall(r"`([a-z_]+)(?:/|\.py)`", row) for row in rows]
    flat = [name for row in listed if row for name in row]
    wanted = [name for layer in layers for name in layer if name != "__main__"]
    assert flat[: len(wanted)] == wanted
