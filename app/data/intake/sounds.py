"""An archive of sounds becomes rows of samples: headers first, to choose one rate and length for all, then one sound after another."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from math import ceil

import numpy as np

from app.data import decode_sound
from app.data.inputs import audio
from app.data.intake import decoded
from app.data.intake.folders import Layout
from app.data.prepared import Writer
from app.data.upload import Upload
from app.data.upload_limits import UploadLimits
from app.spec.data import Schema, SoundDecoding
from app.spec.faults import Fault, Invalid
from app.spec.intake import HIGHEST_RATE, LOWEST_RATE, Intake, UploadOptions

KIND = "sound"
OPTIONS = ("rate", "seconds")
ENDINGS = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff", ".aifc"),
    *(".m4a", ".aac", ".opus", ".wma", ".amr", ".caf"),  # counted as broken, with the way to convert them
)
DEFAULT_RATE = 16_000
MOST_SECONDS = 10
SAMPLE_BYTES = 2


def read(layout: Layout, upload: Upload, out: Writer) -> tuple[Schema, Intake]:
    """Writes the sounds of `layout` to `out`, in its order.

    Raises:
        Invalid: too many broken files, see `labels.check_broken`; too many samples; faults in the columns.
    """
    sounds = decoded.headers(layout, upload, decode_sound.header)
    notes = [*layout.notes]
    how = _decoding([sound.header for sound in sounds], upload.options, notes)
    _check_room(len(sounds), how, upload.limits)
    return decoded.finish(layout, sounds, audio.schema(how), np.dtype(np.int16), upload, notes, out)


def _decoding(headers: Sequence[decode_sound.Header], options: UploadOptions, notes: list[str]) -> SoundDecoding:
    """One rate and length for all. What was not asked for is said in `notes`."""
    rate = options.rate or _rate(headers, notes)
    wide = sum(header.channels > 1 for header in headers)
    if wide:
        notes.append(f"{wide} of {len(headers)} sounds have several channels: their mean was taken.")
    samples = _samples(headers, rate, options, notes)
    return audio.decoded(rate, samples)


def _rate(headers: Sequence[decode_sound.Header], notes: list[str]) -> int:
    rates = Counter(header.rate for header in headers)
    lowest, highest = min(rates), max(rates)
    if len(rates) == 1 and LOWEST_RATE <= lowest <= HIGHEST_RATE:
        return lowest
    there = f"{len(rates)} rates, {lowest} to {highest}" if len(rates) > 1 else f"{lowest}"
    notes.append(
        f"The sounds have {there} samples a second: each was brought to {DEFAULT_RATE}; -F rate=SAMPLES chooses another rate."
    )
    return DEFAULT_RATE


def _samples(headers: Sequence[decode_sound.Header], rate: int, options: UploadOptions, notes: list[str]) -> int:
    """How many each row has: what was asked for, else what the longest sound has, up to a limit."""
    lengths = [ceil(header.frames * rate / header.rate) for header in headers]
    if options.seconds is not None:
        samples = max(1, round(options.seconds * rate))
    else:
        samples = min(max(lengths), MOST_SECONDS * rate)
    longer, shorter = sum(length > samples for length in lengths), sum(length < samples for length in lengths)
    changes = [f"{longer} longer ones were cut there"] * bool(longer)
    if shorter and options.seconds is None:
        changes.append(f"{shorter} shorter ones were filled with silence at the end")
    if changes:
        notes.append(
            f"The sounds last {min(lengths) / rate:.3g} to {max(lengths) / rate:.3g} s: each has {samples / rate:.3g} s now. "
            f"{' and '.join(changes)}; -F seconds=SECONDS chooses another length."
        )
    return samples


def _check_room(rows: int, how: SoundDecoding, limits: UploadLimits) -> None:
    needed = rows * how.samples * SAMPLE_BYTES
    if how.samples > limits.row_values:
        message = f"a sound of {how.samples} samples is too long, at most {limits.row_values} are allowed"
    elif needed > limits.archive_bytes:
        message = f"{rows} sounds of {how.samples} samples take {needed} bytes, at most {limits.archive_bytes} are kept"
    else:
        return
    hint = "choose a shorter length or a lower rate: -F seconds=2 -F rate=16000"
    raise Invalid([Fault("/file", message, hint, "too_large")])


def warm_up() -> None:
    """Reads a tiny sound of every format at another rate than its own: what libraries load at first use is loaded then."""
    import soundfile

    samples = np.sin(np.arange(4_000, dtype=np.float32) / 9) / 2
    for name in decode_sound.FORMATS:
        made = io.BytesIO()
        soundfile.write(made, np.stack([samples, samples], axis=1), 8_000, format=name)
        decode_sound.header(made.getvalue())
        decode_sound.sound(made.getvalue(), rate=11_025, samples=6_000)
