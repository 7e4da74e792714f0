"""Everything that can be configured, with its default and its meaning: the single source of the schema.

A description here is what `config/sda-daemon.yaml`, the reference and the JSON Schema say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sda_daemon.settings.units import Duration, Size

Text = str
"""A Jinja2 template."""

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json", "journal"]
ObserverKind = Literal["auto", "native", "polling"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)


class MetadataSettings(_Section):
    """Templates for what a new model is called and how it is described.

    Each is a Jinja2 template over the checkpoint's facts.
    """

    name: Text = Field("{{ run }} epoch {{ epoch }}", description="The model's name; its file name follows from it.")
    description: Text = Field("", description="A sentence or two.")
    dataset_name: Text = Field("{{ run }}", description="The recordings that it was trained on.")
    dataset_file_count: int | Text = Field(0, description="How many recordings; a number or a template that gives one.")
    dataset_total_duration_s: float | Text = Field(0.0, description="Their duration in seconds; likewise.")
    training_date: Text = Field(
        "{{ mtime.isoformat(timespec='seconds') }}", description="When it was trained, as ISO 8601."
    )
    tags: tuple[Text, ...] = Field((), description="Tags; one that renders to nothing is left out.")


class WatchSettings(_Section):
    """One folder whose checkpoints are converted."""

    path: Path = Field(description="The folder; everything below it is watched.")
    patterns: tuple[str, ...] = Field(("*.pt", "*.pth", "*.ckpt"), description="File names that count as checkpoints.")
    ignore: tuple[str, ...] = Field((), description="Globs on the path below the folder that are never looked at.")
    settle_s: Annotated[Duration, Field(ge=0)] = Field(
        2.0, description="How long a file must be left alone before it is converted."
    )
    incomplete_after_s: Annotated[Duration, Field(gt=0)] = Field(
        600.0, description="How long a half-written file may stay so before it is reported."
    )
    observer: ObserverKind = Field(
        "auto", description="How changes are noticed: natively, by polling, or whichever the file system allows."
    )
    poll_interval_s: Annotated[Duration, Field(gt=0)] = Field(
        5.0, description="How often a polled folder is looked at."
    )
    on_overwrite: Literal["version", "replace"] = Field(
        "version",
        description="When other weights are saved under the same path: make a further model, or replace the old one.",
    )
    select: Literal["all", "best", "latest"] = Field(
        "all",
        description="Which checkpoints of a folder stay as models: all, the one with the lowest validation loss, "
        "or the one with the highest epoch. Models saved by hand are never touched.",
    )
    after: Literal["keep", "delete", "move"] = Field(
        "keep", description="What happens to a checkpoint once its model is safely in the library."
    )
    move_to: Path | None = Field(
        None, description="Where `after: move` puts checkpoints; their path below the watched folder is kept."
    )

    @model_validator(mode="after")
    def _check_move(self) -> WatchSettings:
        if (self.after == "move") != (self.move_to is not None):
            raise ValueError("`after: move` and `move_to` need each other")
        return self


class ConversionSettings(_Section):
    """How conversions are run."""

    time_limit_s: Annotated[Duration, Field(gt=0)] = Field(
        300.0, description="A conversion that takes longer is cut off and counts as a failed attempt."
    )
    idle_close_s: Annotated[Duration, Field(ge=0)] = Field(
        60.0, description="Worker processes end after this long without work."
    )
    max_attempts: Annotated[int, Field(ge=1)] = Field(
        5, description="A checkpoint whose worker dies or hangs this often is given up."
    )
    memory_limit: Annotated[Size, Field(ge=2**30)] | None = Field(
        16 * 2**30, description="Address space of one worker process, in bytes; null for no limit."
    )


class LoggingSettings(_Section):
    """What is logged and how."""

    level: LogLevel = Field("info", description="The least important events that are logged.")
    format: LogFormat = Field(
        "auto",
        description="console for people, json for programs, journal for entries with fields in systemd's journal; "
        "auto: journal where stderr is the journal, console on a terminal, else json.",
    )


class Settings(_Section):
    """The whole config."""

    models_dir: Path = Field(description="The folder of the finished models and their index.")
    watch: tuple[WatchSettings, ...] = Field(min_length=1, description="The folders of the checkpoints.")
    state_dir: Path | None = Field(
        None, description="Where the daemon keeps what it remembers; by default a folder of its own for each library."
    )
    metadata: MetadataSettings = Field(MetadataSettings(), description="Templates for the models' metadata.")
    workers: Annotated[int, Field(ge=1, le=64)] = Field(2, description="Conversions that may run at the same time.")
    rescan_interval_s: Annotated[Duration, Field(gt=0)] = Field(
        300.0, description="How often everything is looked at anew, in case an event was lost."
    )
    stop_grace_s: Annotated[Duration, Field(ge=0)] = Field(
        30.0, description="How long running conversions may take to finish when the daemon is stopped."
    )
    conversion: ConversionSettings = Field(ConversionSettings(), description="How conversions are run.")
    logging: LoggingSettings = Field(LoggingSettings(), description="What is logged and how.")
