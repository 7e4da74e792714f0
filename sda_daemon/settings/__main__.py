"""`python -m sda_daemon.settings config`: renew the repository's annotated config and its JSON Schema."""

from __future__ import annotations

import sys
from pathlib import Path

from sda_daemon.settings.annotated import SCHEMA_FILE_NAME, annotated_config, config_json_schema

folder = Path(sys.argv[1])
(folder / "sda-daemon.yaml").write_text(annotated_config("../data/models", "../data/checkpoints", "../data/state"))
(folder / SCHEMA_FILE_NAME).write_text(config_json_schema())
