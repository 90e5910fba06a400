"""How large a job may be: the settings that a method checks while it resolves a spec."""

from __future__ import annotations

from app.settings import settings


def most_parameters() -> int:
    return settings().max_parameters


def most_epochs() -> int:
    return settings().max_epochs
