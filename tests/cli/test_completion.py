"""Completion in the real shells: bash, zsh and fish."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.console import COMMAND, environment, run
from tests.cli.odd_library import add_odd_entries


def complete(shell: str, line: str, library: Path) -> set[str]:
    """Return what a shell offers at the end of a line, having loaded our script."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    scripts = {
        "bash": f"""
eval "$(sda-daemon completion bash)"
COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
_sda_daemon_completion sda-daemon
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
        "zsh": f"""
compdef() {{ : }}
_arguments() {{ print -- "$@" }}
eval "$(sda-daemon completion zsh)"
words=({quoted}); CURRENT={len(words)}
_sda_daemon_completion
""",
        "fish": f"""
sda-daemon completion fish | source
complete -C '{line}'
""",
    }
    done = subprocess.run(
        [shell, "-c", scripts[shell]],
        cwd=library,
        env={**environment(library), "PATH": f"{COMMAND.parent}:/usr/bin:/bin", "SDA_DAEMON_CONFIG": "sda-daemon.yaml"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_models(shell: str, library: Path) -> None:
    """Each shell offers subcommands, options and the names of the config's library."""
    assert any("models" in line for line in complete(shell, "sda-daemon mod", library))
    assert any("--models-dir" in line for line in complete(shell, "sda-daemon models list --mod", library))
    assert any("Rain on tin" in line for line in complete(shell, "sda-daemon models show R", library))


def test_ids_complete_once_they_are_begun(library: Path) -> None:
    """Names first; ids only for whoever types one."""
    offered = complete("bash", "sda-daemon models show --models-dir models 9c", library)
    assert offered == {"9c0d41aa-0000-5000-8000-000000000002", "9c0d77ee-0000-5000-8000-000000000003"}


def test_completion_of_a_library_that_is_not_there_is_silent(library: Path) -> None:
    """A line that is being typed must not be spoilt by messages."""
    assert complete("bash", "sda-daemon models show --models-dir nowhere R", library) <= {""}


def test_trash_completes_for_restore(library: Path) -> None:
    """`restore` offers what is in the trash, not what is in the library."""
    run("models", "delete", "1a2f", "--yes", "--models-dir", "models", cwd=library)
    assert complete("bash", "sda-daemon models restore --models-dir models R", library) == {"Rain on tin"}
    assert complete("bash", "sda-daemon models show --models-dir models R", library) <= {""}


def test_unknown_shell(library: Path) -> None:
    """2, and the three that there are."""
    printed = run("completion", "tcsh", cwd=library)
    assert printed.code == 2
    assert "'bash', 'zsh', 'fish'" in printed.stderr


def test_odd_names_do_not_spoil_the_others(library: Path) -> None:
    """Names that are missing, endless, or cannot be typed are not offered; the others are."""
    add_odd_entries(library / "models")
    offered = complete("bash", "sda-daemon models show --models-dir models R", library)
    assert offered == {"Rain on tin"}
    assert "huge" in complete("bash", "sda-daemon models show --models-dir models hu", library)
