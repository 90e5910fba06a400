"""`audio-cnn` made small, for students."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import audio_cnn


class Spec(audio_cnn.Spec):
    arch: Literal["audio-cnn-small"] = "audio-cnn-small"  # type: ignore[assignment]
    filters: audio_cnn.Filters = [16, 32]
    dense: int = Field(32, ge=1, le=4096)
