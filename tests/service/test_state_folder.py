"""The service and the commands in a terminal agree on where the state is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sda_daemon.settings.loading import service_state_folder


@pytest.mark.parametrize(
    ("config", "state"),
    [
        ("/etc/sda-daemon/config.yaml", "/var/lib/sda-daemon"),
        ("/etc/sda-daemon/rain.yaml", "/var/lib/sda-daemon/rain"),
        ("/etc/other/config.yaml", None),
        ("/home/alice/.config/sda-daemon/config.yaml", None),
    ],
)
def test_a_service_config_has_the_state_folder_of_its_unit(config: str, state: str | None) -> None:
    """As StateDirectory= of the plain unit and of the template has it."""
    assert service_state_folder(Path(config)) == (Path(state) if state else None)
