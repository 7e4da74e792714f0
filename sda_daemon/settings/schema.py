"""Everything that can be configured, with its default and its meaning: the single source of the schema.

A description here is what the annotated config, `config show` and the JSON Schema say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sda_daemon.errors import TemplateError
from sda_daemon.settings.units import Duration, Size
from sda_daemon.templates import ShallowPathError, try_condition, try_number, try_text


def _tried(trial: Callable[[str], None], value: str) -> None:
    """Try a template; one that fails only for want of folders above a checkpoint may be right where there are more."""
    try:
        trial(value)
    except ShallowPathError:
        pass  # `settings.advice` warns of it
    except TemplateError as error:
        raise ValueError(str(error)) from error


def _tried_text(value: str) -> str:
    _tried(try_text, value)
    return value


def _tried_number(value: Any) -> Any:
    """Check a number, or a template that gives one."""
    if isinstance(value, str):
        _tried(try_number, value)
    elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError('must be a number from 0 on, or a template such as "{{ sidecar.files }}"')
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError('must be a whole number, or a template such as "{{ sidecar.files }}"')
    return value


def _no_truth(value: Any) -> Any:
    """Refuse true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a whole number")
    return value


def _tried_condition(value: str) -> str:
    _tried(try_condition, value)
    return value


Text = Annotated[str, AfterValidator(_tried_text)]
"""A Jinja2 template."""
CountText = Annotated[int | str, BeforeValidator(_tried_number), BeforeValidator(_whole)]
"""A whole number, or a template that gives one."""
NumberText = Annotated[float | str, BeforeValidator(_tried_number)]
"""A number, or a template that gives one."""
Condition = Annotated[str, AfterValidator(_tried_condition)]
"""A Jinja2 expression over the facts."""
_NO_TRUTH = BeforeValidator(_no_truth)
Glob = Annotated[str, Field(min_length=1)]

ModelsFormat = Literal["sda", "distill", "distillgan", "auto"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json", "journal"]
ObserverKind = Literal["auto", "native", "polling"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, allow_inf_nan=False)


class MetadataSettings(_Section):
    """What a new model is called and how it is described: Jinja2 templates over the checkpoint's facts."""

    name: Text = Field("{{ run }} epoch {{ epoch }}", description="The model's name; its file name follows from it.")
    description: Text = Field("", description="A sentence or two.")
    dataset_name: Text = Field("{{ run }}", description="The recordings that it was trained on.")
    dataset_file_count: CountText = Field(0, description="How many recordings: a number or a template that gives one.")
    dataset_total_duration_s: NumberText = Field(0.0, description="Their duration in seconds, likewise.")
    training_date: Text = Field(
        "{{ mtime.isoformat(timespec='seconds') }}", description="When it was trained, as ISO 8601."
    )
    tags: tuple[Text, ...] = Field((), description="Each tag is a template; one that renders to nothing is left out.")


class MetadataOverrides(_Section):
    """Metadata that replaces what the config says in general; also what a `sda.yaml` file may hold."""

    name: Text | None = Field(None, description="The model's name.")
    description: Text | None = Field(None, description="A sentence or two.")
    dataset_name: Text | None = Field(None, description="The recordings that it was trained on.")
    dataset_file_count: CountText | None = Field(None, description="How many recordings.")
    dataset_total_duration_s: NumberText | None = Field(None, description="Their duration in seconds.")
    training_date: Text | None = Field(None, description="When it was trained, as ISO 8601.")
    tags: tuple[Text, ...] = Field((), description="Tags; they add up with those given elsewhere.")
    replace_tags: bool = Field(False, description="Whether these tags take the place of all others instead.")


class WatchSettings(_Section):
    """One folder whose checkpoints are converted."""

    path: Path = Field(
        description="The folder; everything below it is watched, but for the library, the trash, state_dir and the "
        "folders of move_to. To convert trainings inside models_dir, watch that folder itself.",
        examples=["~/training/runs"],
    )
    patterns: tuple[Glob, ...] = Field(
        ("*.pt", "*.pth", "*.ckpt"), description="File names that count as checkpoints; a finished model never does."
    )
    ignore: tuple[Glob, ...] = Field(
        (), description='Globs on the path below the folder that are never looked at, such as "old/*".'
    )
    settle_s: Annotated[Duration, Field(ge=0)] = Field(
        2.0, description="How long a file must be left alone before it is converted."
    )
    incomplete_after_s: Annotated[Duration, Field(gt=0)] = Field(
        600.0, description="How long a half-written file may stay so before it is reported."
    )
    observer: ObserverKind = Field(
        "auto",
        description="How changes are noticed: native, polling, or auto (native where the file system allows it).",
    )
    poll_interval_s: Annotated[Duration, Field(gt=0)] = Field(
        5.0, description="How often a polled folder is looked at."
    )
    on_overwrite: Literal["version", "replace"] = Field(
        "version",
        description="When other weights are saved under the same path: make a further model (version), or replace the "
        "old one (replace).",
    )
    select: Literal["all", "best", "latest"] = Field(
        "all",
        description="Which checkpoints of a folder stay as models: all, best (lowest validation loss) or latest "
        "(highest epoch). The others go to the trash; those in use stay: saved by hand, restored, named, described or "
        "tagged by a person, or in the application's presets or history.",
    )
    after: Literal["keep", "delete", "move"] = Field(
        "keep",
        description="What happens to a checkpoint once its model is safely in the library: keep, delete or move. To "
        "resume needs the checkpoints: a training that is to go on from one must find it where it was.",
    )
    move_to: Path | None = Field(
        None,
        description="Where `after: move` puts checkpoints; their path below the watched folder is kept. Beside the "
        "watched folder or inside it, also on another disk; never looked into.",
    )

    @model_validator(mode="after")
    def _check_move(self) -> WatchSettings:
        if (self.after == "move") != (self.move_to is not None):
            raise ValueError("`after: move` and `move_to` need each other")
        return self


class RuleSettings(_Section):
    """What is different for some checkpoints. Keys of `watch` that are here too can be set by a rule."""

    match: Glob = Field(
        description='Glob on the path below the watched folder; * also matches "/".', examples=['"field-*/*"']
    )
    when: Condition | None = Field(
        None, description="A condition on the facts, such as: epoch >= 100 and training.preset == 'balanced'."
    )
    skip: bool | None = Field(None, description="Whether such checkpoints are left alone.")
    metadata: MetadataOverrides = Field(MetadataOverrides(), description="Templates that are used instead.")
    settle_s: Annotated[Duration, Field(ge=0)] | None = Field(
        None, description="How long such a file must be left alone before it is converted."
    )
    incomplete_after_s: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="How long such a file may stay half written before it is reported."
    )
    on_overwrite: Literal["version", "replace"] | None = Field(
        None, description="When other weights are saved under the same path: version or replace."
    )
    after: Literal["keep", "delete"] | None = Field(
        None, description="What happens to such a checkpoint once its model is safely in the library: keep or delete."
    )
    models_format: ModelsFormat | None = Field(
        None, description="Which generation of the application such models are for: sda, distill, distillgan or auto."
    )

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        given = self.model_fields_set - {"match", "when"}
        if not given:
            raise ValueError("this rule changes nothing; give it metadata, skip: true or settle_s")
        by_path = sorted(given & set(WatchSettings.model_fields))
        if self.when is not None and by_path:
            raise ValueError(
                f"{by_path[0]} does not go with `when`: it is decided by the path alone, before the checkpoint is "
                "read; give it in a rule that has only `match`"
            )
        return self


class ConversionSettings(_Section):
    """How conversions are run."""

    time_limit_s: Annotated[Duration, Field(gt=0)] = Field(
        300.0, description="A conversion that takes longer is cut off and counts as a failed attempt."
    )
    idle_close_s: Annotated[Duration, Field(ge=0)] = Field(
        60.0, description="Worker processes end after this long without work."
    )
    max_attempts: Annotated[int, Field(ge=1), _NO_TRUTH] = Field(
        5, description="A checkpoint whose worker dies or hangs this often is given up."
    )
    memory_limit: Annotated[Size, Field(ge=2**30)] | None = Field(
        16 * 2**30, description="Address space of one worker process; null for no limit."
    )


class ApplicationSettings(_Section):
    """The training application that the library is shared with: what people made there with models."""

    presets: Path | None = Field(
        None,
        description="Where it keeps presets. A model that has some is in use: it is never pruned, replaced or "
        "superseded.",
    )
    history: Path | None = Field(
        None, description="Where it keeps its history of generated sounds. A model that stands in it is in use, too."
    )


class LoggingSettings(_Section):
    """What is logged and how."""

    level: LogLevel = Field(
        "info", description="The least important events that are logged: debug, info, warning or error."
    )
    format: LogFormat = Field(
        "auto",
        description="console for people, json for programs, journal for entries with fields in systemd's journal; "
        "auto: journal where stderr is the journal, console on a terminal, else json.",
    )


class Settings(_Section):
    """The whole config."""

    models_dir: Path = Field(
        description="The folder of the finished models and of their index, model_library.json; made if it is missing.",
        examples=["~/Music/models"],
    )
    state_dir: Path | None = Field(
        None,
        description="Where the daemon keeps what it remembers. Default: a folder of its own for each library, "
        "in the user's state folder or in the one that systemd gives.",
    )
    watch: tuple[WatchSettings, ...] = Field(
        min_length=1, description="The folders of the checkpoints.", examples=["[{path: ~/training/runs}]"]
    )
    metadata: MetadataSettings = Field(
        MetadataSettings(), description="What a new model is called and how it is described."
    )
    rules: tuple[RuleSettings, ...] = Field(
        (), description="What is different for some checkpoints; later rules override earlier ones, field by field."
    )
    application: ApplicationSettings = Field(
        ApplicationSettings(), description="The training application that the library is shared with."
    )
    models_format: ModelsFormat = Field(
        "sda",
        description="Which generation of the training application new models are for: sda, distill, distillgan, or "
        "auto (the one that each checkpoint was trained with). A model is never written for one that would decode it "
        "with the wrong activation: then it becomes .sda, and an event says why.",
    )
    workers: Annotated[int, Field(ge=1, le=64), _NO_TRUTH] = Field(
        2, description="Worker processes: conversions that may run at the same time."
    )
    rescan_interval_s: Annotated[Duration, Field(gt=0)] = Field(
        300.0, description="How often everything is looked at anew, in case an event was lost."
    )
    stop_grace_s: Annotated[Duration, Field(ge=0)] = Field(
        30.0, description="How long running conversions may take to finish when the daemon is stopped."
    )
    conversion: ConversionSettings = Field(ConversionSettings(), description="How conversions are run.")
    logging: LoggingSettings = Field(LoggingSettings(), description="What is logged and how.")
