"""Structured logs: one chain for our own lines and those of libraries, coloured on a terminal, JSON elsewhere.

`request_id` and `job_id` are bound as context variables (`structlog.contextvars.bind_contextvars`) and stand on every
line that is written while they hold. Secrets are cut out last, whatever wrote the line.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from app.settings import settings

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Without the scheme: to look for one from each letter of a long word to its end takes quadratic time.
    (re.compile(r"(://[^\s/:@]*):[^\s/@]+@"), r"\1:***@"),
    (re.compile(r"((?:password|passwd|secret|token)\s*[=:]\s*)[^\s&;,'\"]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"(authorization['\"]?\s*[=:]\s*['\"]?(?:bearer|basic)\s+)[^\s'\"]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(tj_[A-Za-z0-9]{8})_[A-Za-z0-9_-]{20,}"), r"\1_***"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=]{8,}"), "whsec_***"),
)


def configure() -> None:
    """Sends every log line of this process to stderr, in the form that BEQUEST_LOG_FORMAT asks for."""
    form = settings().log_format
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        without_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    last: Processor = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    handler = _ToStderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # ExtraAdder is left out: libraries put whole requests into `extra`.
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, without_secrets, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "alembic"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    # The middleware writes one line for each request, with its id; uvicorn's and httpx's would be second ones.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def get(name: str) -> structlog.stdlib.BoundLogger:
    """A logger: `log.info("job claimed", job_id=…)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def redact(text: str) -> str:
    """`text` with passwords in URLs, keys and authorization headers replaced by ***."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def without_secrets(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """The structlog processor that redacts every text of a line, nested ones too."""
    return {key: value if key.startswith("_") else _clean(value) for key, value in line.items()}


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to stderr as it is at that moment, so that a later redirection gets the lines."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _value: TextIO) -> None:
        raise AttributeError("redirect sys.stderr instead")


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value
