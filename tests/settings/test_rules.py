"""Which layer gives each field: the config, its rules, notes beside the recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sda_daemon.errors import TemplateError
from sda_daemon.settings import MetadataOverrides, MetadataSettings, RuleSettings, WatchSettings
from sda_daemon.settings.rules import (
    PER_FILE_SETTINGS,
    Notes,
    matches,
    name_checkpoint,
    skipped_by_path,
    template_digest,
    watch_of,
    watch_settings_for,
)
from sda_daemon.templates import EXAMPLES

FACTS = EXAMPLES[0].facts
RELPATH = FACTS["relpath"]


def rule(match: str = "*", **values: Any) -> RuleSettings:
    """Return a checked rule."""
    return RuleSettings.model_validate({"match": match, **values})


def notes(path: str = "/runs/sda.yaml", **values: Any) -> Notes:
    """Return checked notes."""
    return Notes(path, MetadataOverrides.model_validate(values))


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("a/*", "a/b.pt", True),
        ("a/*", "a/b/c.pt", True),
        ("a/", "a/b/c.pt", True),
        ("a", "a/b.pt", False),
        ("*.pt", "a/b.pt", True),
        ("**/b.pt", "b.pt", True),
        ("**/b.pt", "x/y/b.pt", True),
        ("A/*", "a/b.pt", False),
        ("field-?/*", "field-1/x.pt", True),
        ("[ab]/*", "b/x.pt", True),
        ("*", "anything/at/all", True),
    ],
)
def test_a_rule_matches_by_glob(pattern: str, path: str, expected: bool) -> None:
    """On the path below the watched folder, with `/` like any other character."""
    assert matches(rule(pattern, skip=True), path) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/runs/x.pt", "/runs"),
        ("/runs/a/x.pt", "/runs"),
        ("/runs/field/x.pt", "/runs/field"),
        ("/runs/field/deep/x.pt", "/runs/field"),
        ("/runs/fields/x.pt", "/runs"),
        ("/runs2/x.pt", None),
        ("/runs", "/runs"),
        ("/x.pt", None),
    ],
)
@pytest.mark.parametrize("folders", [("/runs", "/runs/field"), ("/runs/field", "/runs")])
def test_the_innermost_watched_folder_counts(folders: tuple[str, ...], path: str, expected: str | None) -> None:
    """In whatever order they stand in the config; a folder of a similar name is another one."""
    watches = [WatchSettings(path=Path(folder)) for folder in folders]
    for given_path in (path, Path(path)):
        watch = watch_of(given_path, watches)
        assert (watch and str(watch.path)) == expected


def test_later_rules_override_earlier_ones_field_by_field() -> None:
    """Each field says which rule gave it."""
    rules = [rule(metadata={"name": "first", "description": "first"}), rule("field-*", metadata={"name": "second"})]
    named = name_checkpoint(MetadataSettings(dataset_name="D"), rules, [], FACTS)
    assert (named.metadata.name, named.metadata.description, named.metadata.dataset_name) == ("second", "first", "D")
    assert named.sources["name"] == "rules[1] (match 'field-*')"
    assert named.sources["description"] == "rules[0] (match '*')"
    assert named.sources["dataset_name"] == "metadata"


def test_tags_add_up_unless_told_to_replace() -> None:
    """In the order of the layers, each once, the empty ones left out."""
    settings = MetadataSettings(tags=("a", "{{ '' }}"))
    rules = [rule(metadata={"tags": ["b", "a"]})]
    named = name_checkpoint(settings, rules, [notes(tags=["c", "{{ run }}"])], FACTS)
    assert named.metadata.tags == ["a", "b", "c", "field-recordings"]
    assert [named.sources[f"tags[{n}]"] for n in range(4)] == [
        "metadata",
        "rules[0] (match '*')",
        *["/runs/sda.yaml"] * 2,
    ]
    replaced = name_checkpoint(settings, [*rules, rule(metadata={"tags": ["z"], "replace_tags": True})], [], FACTS)
    assert replaced.metadata.tags == ["z"]
    emptied = name_checkpoint(settings, [rule(metadata={"replace_tags": True})], [], FACTS)
    assert emptied.metadata.tags == []


def test_conditions_are_about_the_facts() -> None:
    """A rule whose condition does not hold does nothing."""
    rules = [
        rule(when="epoch >= 100", metadata={"name": "late"}),
        rule(when="training.preset == 'wild'", metadata={"name": "wild"}),
    ]
    assert name_checkpoint(MetadataSettings(), rules, [], FACTS).metadata.name == "late"
    assert (
        name_checkpoint(MetadataSettings(), rules, [], EXAMPLES[1].facts).metadata.name == "field-recordings epoch 40"
    )


def test_the_nearest_notes_have_the_last_word() -> None:
    """Over rules, and over notes further up."""
    rules = [rule(metadata={"name": "by rule", "description": "by rule"})]
    found = [notes("/runs/sda.yaml", name="outer", dataset_file_count=7), notes("/runs/a/sda.yaml", name="{{ stem }}")]
    named = name_checkpoint(MetadataSettings(), rules, found, FACTS)
    assert named.metadata.name == "checkpoint_epoch0190"
    assert (named.metadata.description, named.metadata.dataset_file_count) == ("by rule", 7)
    assert named.sources["name"] == "/runs/a/sda.yaml"


def test_notes_that_fail_for_this_checkpoint_are_left_out_as_a_whole() -> None:
    """And reported; what is wrong in the config itself is an error."""
    broken = notes("/runs/sda.yaml", name="kept out", description="{{ sidecar.operator }}")
    named = name_checkpoint(MetadataSettings(), [], [broken, notes("/runs/a/sda.yaml", description="x")], FACTS)
    assert (named.metadata.name, named.metadata.description) == ("field-recordings epoch 190", "x")
    ((path, reason),) = named.ignored_notes
    assert path == "/runs/sda.yaml"
    assert reason.startswith("description: there is no 'operator' in sidecar")
    with pytest.raises(TemplateError, match=r"^rules\[0\]\.metadata\.description: there is no 'operator'"):
        name_checkpoint(MetadataSettings(), [rule(metadata={"description": "{{ sidecar.operator }}"})], [], FACTS)
    with pytest.raises(TemplateError, match=r"^rules\[0\]\.when: there is no 'operator'"):
        name_checkpoint(MetadataSettings(), [rule(when="sidecar.operator == 1", skip=True)], [], FACTS)
    with pytest.raises(TemplateError, match=r"^metadata\.tags\[1\]: there is no 'operator'"):
        name_checkpoint(MetadataSettings(tags=("a", "{{ sidecar.operator }}")), [], [], FACTS)


def test_skipping() -> None:
    """The last rule that speaks of it decides; with a condition only once the facts are known."""
    assert name_checkpoint(MetadataSettings(), [], [], FACTS).skip == ""
    by_path = [rule("other/*", skip=True), rule("field-*", skip=True)]
    assert name_checkpoint(MetadataSettings(), by_path, [], FACTS).skip == "rules[1] (match 'field-*') says skip"
    assert skipped_by_path(by_path, RELPATH) == "rules[1] (match 'field-*') says skip"
    again = [*by_path, rule(when="epoch > 100", skip=False)]
    assert name_checkpoint(MetadataSettings(), again, [], FACTS).skip == ""
    assert skipped_by_path(again, RELPATH) == "", "it is certain only when the checkpoint has been read"
    conditional = [rule(when="epoch > 100", skip=True)]
    assert skipped_by_path(conditional, RELPATH) == ""
    assert (
        name_checkpoint(MetadataSettings(), conditional, [], FACTS).skip
        == "rules[0] (match '*' when epoch > 100) says skip"
    )


_RULES = st.lists(
    st.builds(
        lambda match, when, skip: rule(match, when=when, skip=skip),
        st.sampled_from(["*", "field-*", "other/*"]),
        st.sampled_from([None, "epoch > 100", "epoch > 1000"]),
        st.sampled_from([True, False, None]),
    ),
    max_size=6,
)


@given(_RULES)
def test_what_is_skipped_by_path_is_skipped_with_facts_too(rules: list[RuleSettings]) -> None:
    """The early answer is never wrong, only sometimes silent."""
    if skipped_by_path(rules, RELPATH):
        for example in EXAMPLES:
            if example.facts["relpath"].startswith("field-"):
                assert name_checkpoint(MetadataSettings(), rules, [], example.facts).skip
    if all(item.when is None for item in rules):
        assert bool(skipped_by_path(rules, RELPATH)) == bool(name_checkpoint(MetadataSettings(), rules, [], FACTS).skip)


def test_rules_change_settings_of_the_watched_folder() -> None:
    """For the files that they match; `settle_s: 0` counts as given."""
    watch = WatchSettings.model_validate({"path": "/runs", "settle_s": 2, "incomplete_after_s": 600})
    rules = [rule("slow/*", settle_s="1m", on_overwrite="replace"), rule("slow/fast/*", settle_s=0)]
    assert watch_settings_for(watch, rules, "x/y.pt") == watch
    slow = watch_settings_for(watch, rules, "slow/y.pt")
    assert (slow.settle_s, slow.on_overwrite, slow.incomplete_after_s) == (60.0, "replace", 600.0)
    assert watch_settings_for(watch, rules, "slow/fast/y.pt").settle_s == 0.0
    assert {"settle_s", "incomplete_after_s", "on_overwrite", "after"} <= set(PER_FILE_SETTINGS)


def test_numbers_come_out_as_numbers() -> None:
    """A template that gives `12.0` for a count gives 12; nothing is 0; a name that is empty is the file's stem."""
    settings = MetadataSettings(
        dataset_file_count="{{ epoch / 10 }}",
        dataset_total_duration_s="{{ '' }}",
        name="{{ '' }}",
        description="a\n b ",
    )
    metadata = name_checkpoint(settings, [], [], FACTS).metadata
    assert (metadata.dataset_file_count, metadata.dataset_total_duration_s) == (19, 0.0)
    assert (type(metadata.dataset_file_count), type(metadata.dataset_total_duration_s)) == (int, float)
    assert metadata.name == "checkpoint_epoch0190"
    assert metadata.description == "a\n b"


def test_the_digest_changes_with_templates_and_rules() -> None:
    """By it, what a rule skipped or a template failed on is looked at again."""
    plain = template_digest(MetadataSettings())
    assert template_digest(MetadataSettings()) == plain
    others = [
        template_digest(MetadataSettings(name="x")),
        template_digest(MetadataSettings(), [rule(skip=True)]),
        template_digest(MetadataSettings(), [rule(skip=False)]),
        template_digest(MetadataSettings(), [rule(skip=True, when="epoch > 3")]),
    ]
    assert len({plain, *others}) == 5
