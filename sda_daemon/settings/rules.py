"""Which metadata a checkpoint gets: the config's templates, then its rules, then notes beside the recordings.

Later layers override earlier ones field by field; tags add up unless a layer says that its own replace them.
Pure: the facts of the checkpoint are an argument.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from sda_daemon.errors import TemplateError
from sda_daemon.models.metadata import ModelMetadata
from sda_daemon.settings.schema import MetadataOverrides, MetadataSettings, RuleSettings, WatchSettings
from sda_daemon.templates.rendering import holds, render_number, render_text

TEXT_FIELDS = ("name", "description", "dataset_name", "training_date")
NUMBER_FIELDS: dict[str, type[int] | type[float]] = {"dataset_file_count": int, "dataset_total_duration_s": float}
RENDERED_FIELDS = (*TEXT_FIELDS, *NUMBER_FIELDS, "tags")
"""The fields of ModelMetadata that templates give; the others come from the checkpoint itself."""
PER_FILE_SETTINGS = tuple(sorted(set(RuleSettings.model_fields) & set(WatchSettings.model_fields)))
"""The keys of `watch` that a rule can set for some files."""
CONFIG_SOURCE = "metadata"


@dataclass(frozen=True, slots=True)
class Notes:
    """What a `sda.yaml` file says. `path` is for messages."""

    path: str
    overrides: MetadataOverrides


@dataclass(frozen=True, slots=True)
class Named:
    """What a checkpoint's model is called, and why.

    Attributes:
        metadata: the rendered fields; the others have their defaults.
        sources: for each rendered field, what gave it: `metadata`, a rule, or the path of a notes file.
            Tags have the key `tags[0]` and so on.
        skip: why the checkpoint is not to be converted; empty if it is.
        ignored_notes: (path, reason) of notes that do not work for this checkpoint.
        models_format: what a rule says that it is to be written in; empty where none says so.
    """

    metadata: ModelMetadata
    sources: Mapping[str, str]
    skip: str
    ignored_notes: tuple[tuple[str, str], ...] = ()
    models_format: str = ""


# --- matching -------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _glob(pattern: str) -> Callable[[str], object]:
    """Return a matcher; `*` also matches `/`, `**/` also nothing, and a folder with `/` behind it all in it."""
    whole = pattern + "*" if pattern.endswith("/") else pattern
    variants = [whole] if not whole.startswith("**/") else [whole, whole[3:]]
    return re.compile("|".join(map(translate, variants))).match


def matches(rule: RuleSettings, relpath: str) -> bool:
    """Tell whether a path below the watched folder is one that a rule is about, conditions aside."""
    return bool(_glob(rule.match)(relpath))


def describe_rule(index: int, rule: RuleSettings) -> str:
    """Name a rule in messages: `rules[2] (match 'drafts/*')`."""
    condition = f" when {rule.when}" if rule.when is not None else ""
    return f"rules[{index}] (match {rule.match!r}{condition})"


def skipped_by_path(rules: Sequence[RuleSettings], relpath: str) -> str:
    """Return why a file is to be left alone, if that is certain before it is read; empty if not."""
    reason = ""
    for index, rule in enumerate(rules):
        if rule.skip is not None and matches(rule, relpath):
            if not rule.skip:
                reason = ""
            elif rule.when is None:
                reason = f"{describe_rule(index, rule)} says skip"
    return reason


def watch_of(path: str | PurePath, watches: Iterable[WatchSettings]) -> WatchSettings | None:
    """Return the watched folder that a path lies in, the innermost of several; None where it lies in none.

    Args:
        path: an absolute path, as it is written: links are not followed.
        watches: the config's `watch`.
    """
    pure = PurePath(path)
    inside = [watch for watch in watches if pure.is_relative_to(watch.path)]
    return max(inside, key=lambda watch: len(watch.path.parts), default=None)


def watch_settings_for(watch: WatchSettings, rules: Sequence[RuleSettings], relpath: str) -> WatchSettings:
    """Return the settings of a watched folder for one file in it."""
    changes = {
        name: value
        for rule in rules
        if rule.when is None and matches(rule, relpath)
        for name in PER_FILE_SETTINGS
        if (value := getattr(rule, name)) is not None
    }
    return watch.model_copy(update=changes) if changes else watch


def _applying(rules: Sequence[RuleSettings], facts: Mapping[str, Any]) -> Iterator[tuple[str, RuleSettings]]:
    for index, rule in enumerate(rules):
        if matches(rule, str(facts["relpath"])):
            source = describe_rule(index, rule)
            if rule.when is None or _labelled(f"rules[{index}].when", lambda rule=rule: holds(rule.when, facts)):  # type: ignore[misc]
                yield source, rule


# --- rendering ------------------------------------------------------------------------------------


def name_checkpoint(
    settings: MetadataSettings, rules: Sequence[RuleSettings], notes: Iterable[Notes], facts: Mapping[str, Any]
) -> Named:
    """Apply all layers to a checkpoint's facts.

    Args:
        settings: the config's `metadata`.
        rules: the config's `rules`.
        notes: from the watched folder downward, so that the nearest comes last.
        facts: see `checkpoint_facts`.

    Raises:
        TemplateError: a template or condition of the config fails; the message names its key.
            Notes that fail are left out instead.
    """
    chosen: dict[str, tuple[Any, str, str]] = {
        field: (getattr(settings, field), CONFIG_SOURCE, CONFIG_SOURCE) for field in RENDERED_FIELDS if field != "tags"
    }
    tags = [(tag, CONFIG_SOURCE, f"{CONFIG_SOURCE}.tags[{index}]") for index, tag in enumerate(settings.tags)]
    skip = models_format = ""
    for source, rule in _applying(rules, facts):
        models_format = rule.models_format or models_format
        if rule.skip is not None:
            skip = f"{source} says skip" if rule.skip else ""
        tags = _overlay(chosen, tags, rule.metadata, source, f"{source.partition(' ')[0]}.metadata")
    ignored = []
    for note in notes:
        try:
            _try_notes(note.overrides, facts)
        except TemplateError as error:
            ignored.append((note.path, error.what))
            continue
        tags = _overlay(chosen, tags, note.overrides, note.path, note.path)
    values = {field: _render(field, value, facts, f"{key}.{field}") for field, (value, _, key) in chosen.items()}
    sources = {field: source for field, (_, source, _) in chosen.items()}
    kept: list[str] = []
    for template, source, key in tags:
        tag = _labelled(key, lambda template=template: render_text(template, facts))  # type: ignore[misc]
        if tag and tag not in kept:
            sources[f"tags[{len(kept)}]"] = source
            kept.append(tag)
    values["name"] = values["name"] or str(facts["stem"])
    return Named(ModelMetadata(**values, tags=kept), sources, skip, tuple(ignored), models_format)


def _overlay(
    chosen: dict[str, tuple[Any, str, str]],
    tags: list[tuple[str, str, str]],
    overrides: MetadataOverrides,
    source: str,
    key: str,
) -> list[tuple[str, str, str]]:
    for field in chosen:
        value = getattr(overrides, field)
        if value is not None:
            chosen[field] = (value, source, key)
    added = [(tag, source, f"{key}.tags[{index}]") for index, tag in enumerate(overrides.tags)]
    return added if overrides.replace_tags else tags + added


def _try_notes(overrides: MetadataOverrides, facts: Mapping[str, Any]) -> None:
    for field in RENDERED_FIELDS:
        value = getattr(overrides, field)
        if field == "tags":
            for index, tag in enumerate(value):
                _labelled(f"tags[{index}]", lambda tag=tag: render_text(tag, facts))  # type: ignore[misc]
        elif value is not None:
            _render(field, value, facts, field)


def _render(field: str, value: Any, facts: Mapping[str, Any], key: str) -> Any:
    wanted = NUMBER_FIELDS.get(field)
    if wanted is None:
        return _labelled(key, lambda: render_text(value, facts, keep_lines=field == "description"))
    if isinstance(value, str):
        return _labelled(key, lambda: render_number(value, facts, wanted))
    return wanted(value)


def _labelled(key: str, what: Callable[[], Any]) -> Any:
    """Do something and put the key before the message if it fails."""
    try:
        return what()
    except TemplateError as error:
        raise TemplateError(f"{key}: {error.what}", error.hint) from error


def template_digest(settings: MetadataSettings, rules: Sequence[RuleSettings] = ()) -> str:
    """Return a digest of templates and rules, by which a model shows what it was named by."""
    content: Any = settings.model_dump(mode="json")
    if rules:
        content = [content, *(rule.model_dump(mode="json", exclude={"models_format"}) for rule in rules)]
    return f"sha256:{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}"
