"""`audio-cnn` made large, for teachers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.spec.architectures import audio_cnn


class Spec(audio_cnn.Spec):
    arch: Literal["audio-cnn-large"] = "audio-cnn-large"  # type: ignore[assignment]
    filters: audio_cnn.Filters = [64, 128, 256]
    dense: int = Field(256, ge=1, le=4096)
