"""The annotated config, the worked examples and the JSON Schema agree with the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from sda_daemon.settings import RuleSettings, Settings
from sda_daemon.settings.annotated import SCHEMA_FILE_NAME, annotated_config, config_json_schema, example_rules
from sda_daemon.settings.loading import load_config, parse_config
from sda_daemon.settings.schema import MetadataOverrides
from sda_daemon.settings.structure import Key, keys_of
from sda_daemon.templates import FACTS
from sda_daemon.templates.filters import FILTERS

CONFIG = Path(__file__).resolve().parents[2] / "config"
REPOSITORY_CONFIG = (CONFIG / "sda-daemon.yaml").read_text()
NOT_IN_THE_OPEN = (RuleSettings, MetadataOverrides)
"""Sections of which the annotated config has only a commented example."""


def all_keys(section: type[BaseModel], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Key]]:
    """Yield every key of the schema with its place; list items have no number."""
    for key in keys_of(section):
        yield (*before, key.name), key
        if key.inner is not None and key.inner not in NOT_IN_THE_OPEN:
            yield from all_keys(key.inner, (*before, key.name))


def value_at(data: object, place: tuple[str, ...]) -> object:
    """Return the value at a place, looking into the first item of lists."""
    for name in place:
        if isinstance(data, list):
            data = data[0]
        assert isinstance(data, dict), place
        assert name in data, place
        data = data[name]
    return data


def settings_at(settings: object, place: tuple[str, ...]) -> object:
    """Return the checked value at a place, looking into the first item of lists."""
    for name in place:
        if isinstance(settings, tuple):
            settings = settings[0]
        settings = getattr(settings, name)
    return settings


@pytest.mark.parametrize("text", [annotated_config(), REPOSITORY_CONFIG], ids=["init", "config/"])
def test_every_key_of_the_schema_is_there_with_its_default(text: str) -> None:
    """No key is missing, and every value is the default, or else the comment above names the default."""
    data = yaml.safe_load(text)
    settings = parse_config(text.encode(), Path("/x/config.yaml"), {}).settings
    lines = text.splitlines()
    for place, key in all_keys(Settings):
        value_at(data, place)
        if key.is_required or (key.is_list and key.inner is not None and place == ("watch",)):
            continue
        if settings_at(settings, place) != key.default:
            at = next(index for index, line in enumerate(lines) if line.lstrip(" -").startswith(f"{key.name}:"))
            assert "# Default: null" in lines[at - 1], place
            assert key.default is None


@pytest.mark.parametrize("text", [annotated_config(), REPOSITORY_CONFIG], ids=["init", "config/"])
def test_every_key_says_what_it_means(text: str) -> None:
    """A comment with the schema's description stands above each key; facts and filters are all listed."""
    flowing = re.sub(r"\s*\n\s*# ?", " ", text)
    for _, key in all_keys(Settings):
        assert key.description, key.name
        assert key.description in flowing, key.name
    for name in (*FACTS, *FILTERS):
        assert re.search(rf"^#   {name} ", text, re.MULTILINE), name


def test_no_key_is_there_that_the_schema_does_not_have() -> None:
    """The other way round: the file has no more keys than the schema."""
    known = {place for place, _ in all_keys(Settings)}

    def walk(data: object, before: tuple[str, ...] = ()) -> None:
        for item in data if isinstance(data, list) else [data]:
            if isinstance(item, dict):
                for name, value in item.items():
                    assert (*before, name) in known
                    walk(value, (*before, name))

    walk(yaml.safe_load(annotated_config()))


def test_the_example_rules_are_valid_and_complete() -> None:
    """Taken out of the comment they are rules that load, and show every key that a rule can have."""
    text = "models_dir: m\nwatch: [{path: runs}]\n" + "\n".join(line[2:] for line in example_rules())
    settings = parse_config(text.encode(), Path("/x/config.yaml"), {}).settings
    assert set().union(*(rule.model_fields_set for rule in settings.rules)) == set(RuleSettings.model_fields)
    assert settings.rules[0].metadata.model_fields_set == set(MetadataOverrides.model_fields)
    commented = [line[2:] for line in annotated_config().splitlines() if line.startswith("#   ")]
    for line in example_rules():
        assert line in commented


def test_the_annotated_file_refers_to_the_schema_beside_it() -> None:
    """Editors with a YAML language server find it without any setting."""
    assert annotated_config().splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA_FILE_NAME}"
    for example in (CONFIG / "examples").glob("*.yaml"):
        reference = example.read_text().splitlines()[0].partition("$schema=")[2]
        assert (example.parent / reference).resolve() == CONFIG / SCHEMA_FILE_NAME


@pytest.mark.parametrize("name", ["laptop", "gpu-server", "network-share"])
def test_a_worked_example_is_valid(name: str) -> None:
    """It loads without a problem and says something that the defaults do not."""
    loaded = load_config(CONFIG / "examples" / f"{name}.yaml", {"HOME": "/home/someone"})
    assert loaded.settings.rules
    assert loaded.settings.metadata != type(loaded.settings.metadata)()


def test_there_are_three_worked_examples() -> None:
    """Each is checked above by its name."""
    assert sorted(path.stem for path in (CONFIG / "examples").glob("*.yaml")) == [
        "gpu-server",
        "laptop",
        "network-share",
    ]


def test_the_json_schema_knows_every_key_and_refuses_others() -> None:
    """Every section lists exactly the keys of the schema, with their descriptions."""
    schema = json.loads(config_json_schema())
    sections = {Settings.__name__: schema, **schema["$defs"]}
    for _, key in all_keys(Settings):
        section = sections[key.section.__name__]
        assert section["additionalProperties"] is False
        assert section["properties"].keys() == key.section.model_fields.keys()
        assert section["properties"][key.name]["description"] == key.description
