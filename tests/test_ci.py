"""`.ci/run`, with a Makefile in the place of ours that only says who runs it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = """
who = $$(id -u | sed 's/^[1-9].*/user/')
demo:
\t@echo "demo: $$(id -un) in $$(pwd), umask $$(umask), $$($(PYTHON) -V), index $$PIP_INDEX_URL"
\t@test ! -e fail-demo-$(who)
test:
\t@echo "tests: $$(id -un) of $$(ls ..)"
\t@test $(who) = 0 || touch /tmp/left
\t@test $(who) = 0 || setsid sleep 60 >/dev/null 2>&1 &
\t@test ! -e fail-lint-$(who)
\t@echo "===== 12 passed, 3 skipped in 0.10s ====="
\t@test ! -e fail-test-$(who)
"""
ON_A_MACHINE_OF_ITS_OWN = """
mount -t tmpfs tmpfs /home
cp -a "$0" /home/checkout
cp -a /etc /home/etc
mount --bind /home/etc /etc
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/tmp
before=$(md5sum /etc/passwd)
code=0
/home/checkout/repository/.ci/run || code=$?
test "$before" = "$(md5sum /etc/passwd)" && echo "no user is left"
test "$(ls /home)" = "checkout
etc" && test -z "$(ls /tmp)" && echo "no file is left"
pgrep sleep >&2 || echo "no process is left"
exit $code
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with our script, beside a folder of samples."""
    folder = tmp_path / "checkout" / "repository"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    (folder / "Makefile").write_text(MAKEFILE)
    (tmp_path / "checkout" / "shared" / "samples" / "runs").mkdir(parents=True)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def commit(folder: Path) -> None:
    """Commit all that is there."""
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    subprocess.run(["git", *name, "commit", "-qm", "as it is"], cwd=folder, check=True)


def run_alone(folder: Path) -> tuple[int, str]:
    """Run the script as root where the users, homes, processes and temporary files of this machine are out of reach."""
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private"]
    if subprocess.run(
        [*namespaces, "mount", "-t", "tmpfs", "tmpfs", "/home"], capture_output=True, check=False
    ).returncode:
        pytest.skip("no namespaces here, in which a user can be made")
    done = subprocess.run(
        [*namespaces, "bash", "-euc", ON_A_MACHINE_OF_ITS_OWN, str(folder.parent)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "PIP_INDEX_URL": "https://example.org/?a=b c"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.needs_root("makes a user")
@pytest.mark.parametrize("failing", ["", "test-0", "demo-user", "test-user", "lint-user"])
def test_both_parts_are_run_and_both_must_pass(repository: Path, failing: str) -> None:
    """As root, and in a clone of a user's, of whom nothing is left; the end says what was run, with counts."""
    if failing:
        (repository / f"fail-{failing}").touch()
    commit(repository)
    code, text = run_alone(repository)
    lines = text.splitlines()
    assert code == (1 if failing else 0), text
    assert "tests: root of repository" in text
    (demo,) = [line for line in lines if line.startswith("demo: ")]
    assert "demo: sda-ci-" in demo
    assert "/sda-daemon, umask 0077, Python 3." in demo
    assert demo.endswith("index https://example.org/?a=b c")
    assert lines.count("===== 12 passed, 3 skipped in 0.10s =====") == (1 if failing == "lint-user" else 2)
    of_root, of_user = lines[lines.index("=== What was run") + 1 :][:2]
    assert of_root.startswith("root, Python 3.")
    assert of_root.endswith("12 passed, 3 skipped in 0.10s" + (" (FAILED)" if failing == "test-0" else ""))
    assert of_user.startswith("the ordinary user sda-ci-")
    assert ("no tests were run" if failing == "lint-user" else "12 passed, 3 skipped in 0.10s") in of_user
    assert of_user.endswith("(FAILED)") == failing.endswith("user")
    for what in ("user", "file", "process"):
        assert f"no {what} is left" in lines, text


@pytest.mark.needs_user("root goes on to the second part")
def test_without_root_the_second_part_is_left_out(repository: Path) -> None:
    """And the end says so."""
    commit(repository)
    done = subprocess.run([repository / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "===== 12 passed, 3 skipped in 0.10s =====" in done.stdout
    assert "an ordinary user made for it: left out, because only root can make one" in done.stdout
    (repository / "fail-test-user").touch()
    assert subprocess.run([repository / ".ci" / "run"], capture_output=True, check=False).returncode == 1
