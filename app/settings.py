"""Every setting of Bequest, read from the environment."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def default_data_folder() -> Path:
    """Root's home is closed to the database's own user, so root's data lives under /var/lib."""
    return Path("/var/lib/bequest") if os.geteuid() == 0 else Path.home() / ".local" / "share" / "bequest"


class Settings(BaseSettings):
    """Times are in seconds, sizes in bytes.

    Where `database_url` and `broker_url` are not set, `bequest serve` starts its own servers under `data`.
    """

    model_config = SettingsConfigDict(populate_by_name=True, extra="ignore")

    database_url: str | None = Field(None, alias="DATABASE_URL")
    broker_url: str | None = Field(None, alias="BROKER_URL")
    inference_url: str | None = Field(None, alias="INFERENCE_URL")
    data: Path = Field(default_factory=default_data_folder, alias="BEQUEST_DATA")
    plugins: Annotated[tuple[str, ...], NoDecode] = Field((), alias="BEQUEST_PLUGINS")
    queue: str = Field("bequest.wake", alias="BEQUEST_QUEUE")
    lease_seconds: float = Field(30, gt=0, alias="BEQUEST_LEASE_SECONDS")
    beat_seconds: float = Field(5, gt=0, alias="BEQUEST_BEAT_SECONDS")
    sweep_seconds: float = Field(2, gt=0, alias="BEQUEST_SWEEP_SECONDS")
    grace_seconds: float = Field(30, gt=0, alias="BEQUEST_GRACE_SECONDS")
    stall_seconds: float = Field(900, gt=0, alias="BEQUEST_STALL_SECONDS")
    max_memory_bytes: int = Field(0, ge=0, alias="BEQUEST_MAX_MEMORY_BYTES")
    max_job_bytes: int = Field(20 * 2**30, gt=0, alias="BEQUEST_MAX_JOB_BYTES")
    max_metric_rows: int = Field(1_000_000, gt=0, alias="BEQUEST_MAX_METRIC_ROWS")
    max_body_bytes: int = Field(262_144, gt=0, alias="BEQUEST_MAX_BODY_BYTES")
    max_predict_bytes: int = Field(16 * 2**20, gt=0, alias="BEQUEST_MAX_PREDICT_BYTES")
    max_upload_bytes: int = Field(256 * 2**20, gt=0, alias="BEQUEST_MAX_UPLOAD_BYTES")
    max_parameters: int = Field(50_000_000, gt=0, alias="BEQUEST_MAX_PARAMETERS")
    max_epochs: int = Field(10_000, gt=0, alias="BEQUEST_MAX_EPOCHS")
    max_queued: int = Field(1000, gt=0, alias="BEQUEST_MAX_QUEUED")
    max_streams: int = Field(200, gt=0, alias="BEQUEST_MAX_STREAMS")
    max_requests: int = Field(200, gt=0, alias="BEQUEST_MAX_REQUESTS")
    max_connections: int = Field(2000, gt=0, alias="BEQUEST_MAX_CONNECTIONS")
    max_bodies_bytes: int = Field(64 * 2**20, gt=0, alias="BEQUEST_MAX_BODIES_BYTES")
    max_uploads_bytes: int = Field(2**30, gt=0, alias="BEQUEST_MAX_UPLOADS_BYTES")
    docs: bool = Field(True, alias="BEQUEST_DOCS")
    file_roots: Annotated[tuple[Path, ...], NoDecode] = Field((), alias="BEQUEST_FILE_ROOTS")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("localhost", "127.0.0.1", "[::1]"), alias="BEQUEST_ALLOWED_HOSTS"
    )
    log_format: Literal["auto", "json", "console"] = Field("auto", alias="BEQUEST_LOG_FORMAT")

    @field_validator("plugins", "file_roots", "allowed_hosts", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _a_lease_outlives_a_late_beat(self) -> Settings:
        if self.lease_seconds < 3 * self.beat_seconds:
            raise ValueError(
                f"BEQUEST_LEASE_SECONDS is {self.lease_seconds:g} and BEQUEST_BEAT_SECONDS {self.beat_seconds:g}: the lease has to "
                "be three times the beat or longer, else workers that are well lose their jobs"
            )
        return self

    @property
    def store(self) -> Path:
        """Kept files: `blob/<sha256>`, and `tmp` for those being written. Shared by the API and all workers."""
        return self.data / "store"

    @property
    def jobs_dir(self) -> Path:
        """A folder for each unfinished job: its trainer's output, log and checkpoints."""
        return self.data / "jobs"

    @property
    def home(self) -> Path:
        """What trainers take for their home; in it `tmp`, for temporary files of those that have no job yet."""
        return self.data / "home"

    @property
    def cache_dir(self) -> Path:
        """What can be computed again: may be deleted at any time."""
        return self.data / "cache"


@cache
def settings() -> Settings:
    return Settings()
