"""The user service in a real user's manager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.systemd.lab import SERVICE, USER_ID, Lab

pytestmark = [pytest.mark.slow, pytest.mark.needs_root("boots a systemd of its own")]


def test_a_user_installs_runs_and_removes_a_service(lab: Lab, small_checkpoints: Callable[..., Path]) -> None:
    """One command, no root: active, converts, may write into its own folders only, logs with fields, and goes again."""
    home = lab.become_user()
    done = lab.sda("systemd-unit", "--user", "--install").stdout
    assert "loginctl enable-linger" in done
    assert lab.show("ActiveState") == "active"
    assert lab.show("StatusText") == "watching 1 folder; nothing to do"
    lab.put(home / "sda-daemon" / "checkpoints" / "rain" / "x.pt", small_checkpoints(1).read_bytes())
    (entry,) = lab.wait_for("conversion.succeeded", f"_SYSTEMD_USER_UNIT={SERVICE}")
    assert (entry["SDA_NAME"], entry["_UID"]) == ("rain epoch 7", str(USER_ID))
    assert lab.exists(home / "sda-daemon" / "models" / "rain_epoch_7.sda")
    inside = ["nsenter", "-t", lab.show("MainPID"), "-m", "-U", "--preserve-credentials", "sh", "-c"]
    refused = lab.run(*inside, f"touch {home}/x", check=False)
    assert "Read-only file system" in refused.stderr
    assert lab.run(*inside, f"touch {home}/sda-daemon/models/x", check=False).returncode == 0
    lab.systemctl("stop", SERVICE)
    assert (lab.show("Result"), lab.show("ExecMainStatus")) == ("success", "0")
    lab.sda("systemd-unit", "--user", "--uninstall")
    assert not lab.exists(home / ".config" / "systemd" / "user" / SERVICE)
    assert lab.exists(home / "sda-daemon" / "models" / "rain_epoch_7.sda")


def test_a_library_outside_the_sandbox_is_told_as_such(lab: Lab) -> None:
    """The message names the line, and the command for a user's own unit."""
    home = lab.become_user()
    lab.sda("systemd-unit", "--user", "--install")
    config = home / ".config" / "sda-daemon" / "config.yaml"
    lab.run("mkdir", str(home / "elsewhere"))
    lab.put(config, lab.read(config).replace(f"{home}/sda-daemon/models", f"{home}/elsewhere"))
    lab.systemctl("restart", SERVICE, check=False)
    lab.wait_until("ExecMainStatus", "73")
    told = lab.entries("-p", "err", "-t", "sda-daemon")[0]["MESSAGE"]
    assert f"{SERVICE} needs the line ReadWritePaths={home}/" in told
    assert "systemd-unit --user --install" in told
    # What it says to do is what helps.
    lab.sda("systemd-unit", "--user", "--install")
    assert lab.show("ActiveState") == "active"
