"""What the system's errors mean; refusals of a sandbox, told from the mount table of one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sda_daemon.errors import ExitCode, exit_code_of
from sda_daemon.os_errors import (
    explained,
    is_refusal,
    kind_of,
    sandbox_hint,
    takes_nothing,
    with_hint,
    with_sandbox_hint,
)
from sda_daemon.unit_sandbox import Service, explain_refusal, mount_of, parse_mounts

MOUNTS = parse_mounts(
    r"""
22 1 254:0 / / ro,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 254:0 /srv/models /srv/models rw,relatime - ext4 /dev/vda rw
31 22 0:25 /systemd/inaccessible/dir /home ro,nosuid - tmpfs tmpfs rw,mode=755
32 22 0:26 / /root ro,nosuid - tmpfs tmpfs ro,mode=755
33 32 254:0 /root/runs /root/runs ro - ext4 /dev/vda rw
34 22 7:0 / /mnt/disc ro,relatime - iso9660 /dev/loop0 ro
35 22 254:0 /with\040space /srv/with\040space rw - ext4 /dev/vda rw
""".splitlines()
)
SYSTEM = Service("sda-daemon.service", "sda-daemon", False)


def test_the_mount_of_a_path_is_the_deepest() -> None:
    """Spaces are escaped in the table; a name that merely begins alike is another folder."""
    points = {path: getattr(mount_of(path, MOUNTS), "point", None) for path in ("/srv/models/x", "/srv/models2", "/")}
    assert points == {"/srv/models/x": "/srv/models", "/srv/models2": "/", "/": "/"}
    found = mount_of("/srv/with space/x", MOUNTS)
    assert found is not None
    assert (found.point, found.is_sandboxed) == ("/srv/with space", False)


@pytest.mark.parametrize(
    ("number", "folder", "target", "words"),
    [
        (errno.EROFS, "/srv/elsewhere", None, "needs the line ReadWritePaths=/srv/elsewhere:"),
        (errno.EROFS, "/root/runs", None, "ReadWritePaths=/root/runs"),
        (errno.EXDEV, "/srv/a/runs", "/srv/a/done", "one line for both, ReadWritePaths=/srv/a:"),
        (errno.EACCES, "/home/alice/runs", None, "needs ProtectHome=tmpfs and BindPaths=/home/alice/runs:"),
        (errno.ENOENT, "/root/other", None, "hides what lies below /root"),
        (errno.EACCES, "/srv/models", None, "setfacl -m u:sda-daemon:rwX /srv/models"),
        (errno.EROFS, "/mnt/disc", None, ""),
        (errno.ENOENT, "/srv/elsewhere", None, ""),
        (errno.ENOSPC, "/srv/models", None, ""),
    ],
)
def test_what_is_the_sandbox_and_what_is_not(number: int, folder: str, target: str | None, words: str) -> None:
    """A mount that is read-only over a writable disk is the sandbox; a disc that is read-only is just that."""
    told = explain_refusal(number, folder, target, MOUNTS, SYSTEM)
    assert words in told
    assert bool(told) == bool(words)


def test_the_remedy_names_the_service_and_its_manager() -> None:
    """A user's own service is edited with --user."""
    users = Service.of("0::/user.slice/user-1000.slice/user@1000.service/app.slice/sda-daemon.service\n", "alice")
    assert (users.unit, users.is_users) == ("sda-daemon.service", True)
    assert "systemctl --user edit sda-daemon.service" in users.remedy
    plain = Service.of("0::/system.slice/system-sda.slice/sda-daemon@rain.service\n", "sda-daemon")
    assert (plain.unit, plain.is_users) == ("sda-daemon@rain.service", False)
    assert "systemctl edit sda-daemon@rain.service" in plain.remedy
    assert "systemd-unit --system --instance rain --install" in plain.remedy


def test_outside_a_service_nothing_is_blamed_on_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the same error is the plain one."""
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    error = OSError(errno.EROFS, "Read-only file system", "/srv/x")
    assert sandbox_hint(error) == ""
    assert with_sandbox_hint(error) == str(error)
    assert with_hint(error) == "Read-only file system (/srv/x). The file system is mounted read-only"


def refused(number: int) -> OSError:
    """Return an error of the system about a file."""
    return OSError(number, os.strerror(number), "x.pt")


@pytest.mark.parametrize(
    ("number", "kind", "text", "code"),
    [
        (errno.EACCES, "permission", "Permission denied (x.pt). Check owner and permissions", ExitCode.CANNOT_WRITE),
        (errno.ENOSPC, "disk_full", "No space left on device (x.pt). Make room", ExitCode.CANNOT_WRITE),
        (errno.EBUSY, "busy", "Device or resource busy (x.pt)", ExitCode.FAILED),
        (errno.EIO, "io", "Input/output error (x.pt)", ExitCode.FAILED),
    ],
)
def test_an_error_has_words_a_kind_and_an_exit_code(number: int, kind: str, text: str, code: ExitCode) -> None:
    """What to do is said where there is something to do."""
    error = refused(number)
    assert (kind_of(error), explained(error), exit_code_of(error)) == (kind, text, code)
    assert explained(error, "it cannot be read").startswith("it cannot be read")


def test_refusals_and_what_takes_nothing() -> None:
    """A read-only mount is both; an error without a number is neither, and has its own words."""
    both = [
        (is_refusal(error), takes_nothing(error)) for error in map(refused, (errno.EPERM, errno.EDQUOT, errno.EROFS))
    ]
    assert both == [(True, False), (False, True), (True, True)]
    assert (is_refusal(OSError("odd")), takes_nothing(OSError("odd")), explained(OSError("odd"))) == (
        False,
        False,
        "odd",
    )
    assert explained(ValueError("a bug")) == with_hint(ValueError("a bug")) == "a bug"


def test_a_real_read_only_mount_is_recognised(tmp_path: Path) -> None:
    """A folder mounted read-only over its writable file system, in a mount namespace of its own, as systemd does it."""
    program = """
import sys
from sda_daemon.os_errors import with_sandbox_hint
try:
    open(sys.argv[1] + "/x", "w")
except OSError as error:
    print(with_sandbox_hint(error))
"""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$1" -c "$2" "$0"'
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(tmp_path), sys.executable, program]
    try:
        done = subprocess.run(
            command, env={**os.environ, "INVOCATION_ID": "x"}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("unshare(1) is not installed")
    if done.returncode != 0:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert f"ReadWritePaths={tmp_path}" in done.stdout
