"""The config file that explains itself, and the JSON Schema by which editors check and complete it. Pure.

Both are made from the schema, so that they cannot say anything else: every key is there with its default.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from sda_daemon.settings.schema import MetadataOverrides, RuleSettings, Settings
from sda_daemon.settings.structure import Key, keys_of
from sda_daemon.settings.writing import write_explained, write_value
from sda_daemon.templates import FACTS
from sda_daemon.templates.filters import FILTERS

SCHEMA_FILE_NAME = "sda-daemon.schema.json"
_WIDTH = 110
_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_HEADER = """\
The config of sda-daemon. Every key is here with its default; only models_dir and one watch path are needed.
The running daemon reads this file again whenever it is saved. A version with a mistake is refused, and the one
before stays in force; `sda-daemon config check` says what is wrong, `config show` what is in force.
Relative paths are relative to this file. `~` and ${VAR} (or ${VAR:-default}) expand.
Durations: 500ms, 2s, 5m, 1h or a number of seconds. Sizes: 500MB, 2GiB or a number of bytes.
Every single value can be overridden by an environment variable: SDA_DAEMON__LOGGING__LEVEL=debug,
SDA_DAEMON__WATCH__0__SETTLE_S=10s.
"""

_RULES = """\
Whoever keeps notes with the recordings can put a file sda.yaml into a checkpoint's folder or one above, up to
the watched folder. It holds the keys of `metadata` below, and has the last word, the nearest one most.
"""

EXAMPLE_RULE: dict[str, Any] = {
    "match": "field-*/*",
    "skip": False,
    "settle_s": "10s",
    "incomplete_after_s": "1h",
    "on_overwrite": "replace",
    "after": "keep",
    "models_format": "auto",
    "metadata": {
        "name": "{{ run | words | title }} ({{ epoch }})",
        "description": "Validation loss {{ val_loss | significant }}.",
        "dataset_name": "Field recordings",
        "dataset_file_count": 120,
        "dataset_total_duration_s": 5400,
        "training_date": "{{ mtime | date }}",
        "tags": ["field", "{{ training.preset | default('') }}"],
        "replace_tags": False,
    },
}
"""A rule with every key but `when`, which goes with `skip` and `metadata` only."""


def annotated_config(
    models_dir: str = "~/Music/models",
    watch_path: str = "~/training/runs",
    state_dir: str | None = None,
    more_watches: Sequence[str] = (),
    **others: Any,
) -> str:
    """Return the annotated config file.

    Args:
        models_dir: value of the key.
        watch_path: path of the one watched folder.
        state_dir: value of the key; None for the default.
        more_watches: paths of further watched folders, with defaults for all else.
        others: values of other keys, those of sections as a dict; a key that the schema does not have is left out.
    """
    values: dict[str, Any] = {"models_dir": models_dir, "watch.path": watch_path}
    values["watch[]"] = [{"path": path} for path in more_watches]
    for name, value in others.items():
        if name in Settings.model_fields:
            inside = value if isinstance(value, dict) else {"": value}
            values.update({f"{name}.{key}".rstrip("."): item for key, item in inside.items()})
    if state_dir is not None:
        values["state_dir"] = state_dir
    header = [f"# {line}" for line in _HEADER.splitlines()]
    body = write_explained(Settings, values, _comment)
    return "\n".join([f"# yaml-language-server: $schema={SCHEMA_FILE_NAME}", *header, "", body])


def _comment(key: Key) -> list[str]:
    text = key.description
    unmentioned = [choice for choice in key.choices if choice not in text]
    if unmentioned:
        text += f" One of {', '.join(key.choices)}."
    lines = textwrap.wrap(text, _WIDTH)
    if key.section is Settings and key.name == "metadata":
        lines += ["Facts:", *_table(FACTS)]
        own = {name: (function.__doc__ or "").splitlines()[0] for name, function in FILTERS.items()}
        lines += ["Filters, beside those of Jinja2 (round, upper, join, default, ...):", *_table(own)]
    if key.section is Settings and key.name == "rules":
        lines += [*_RULES.splitlines(), "One with everything that it can hold:", *example_rules()]
    return lines


def _table(rows: dict[str, str]) -> list[str]:
    lines = []
    for name, text in rows.items():
        lines += textwrap.wrap(f"  {name:<12} {text}", _WIDTH, subsequent_indent=" " * 15)
    return lines


def example_rules() -> list[str]:
    """Return the lines of a `rules` list that shows every key of a rule."""
    when = next(key for key in keys_of(RuleSettings) if key.name == "when")
    lines = ["  rules:"]
    for key in keys_of(RuleSettings):
        if key.name in EXAMPLE_RULE and key.name != "metadata":
            start = "    - " if key.name == "match" else "      "
            lines.append(_with_note(f"{start}{key.name}: {write_value(EXAMPLE_RULE[key.name], key)}", key))
    lines.append("      metadata:")
    for key in keys_of(MetadataOverrides):
        lines.append(_with_note(f"        {key.name}: {write_value(EXAMPLE_RULE['metadata'][key.name], key)}", key))
    lines += ['    - match: "*"', _with_note("      when: val_loss > 1 and epoch < 50", when), "      skip: true"]
    return lines


def _with_note(line: str, key: Key) -> str:
    whole = f"{line}  # {key.description}"
    return whole if len(whole) <= _WIDTH else line


def config_json_schema() -> str:
    """Return the JSON Schema of the config file."""
    schema = Settings.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for setting in section.get("properties", {}).values():
            setting.pop("title", None)  # pydantic's are the keys again
            target = schema["$defs"].get(setting.get("$ref", "").rpartition("/")[2], {})
            setting.setdefault("description", target.get("description", ""))  # left out where it is the same
    schema["title"] = "sda-daemon config"
    return json.dumps({"$schema": _SCHEMA_DIALECT, **schema}, indent=2, ensure_ascii=False) + "\n"
