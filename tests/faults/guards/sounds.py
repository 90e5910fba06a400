"""Guards of sounds: what their headers say, and that a row's answer is its own."""

from __future__ import annotations

from tests.faults.guards.guard import Guard

DECODING, NETWORK = (
    "tests/app/data/test_decode_sound.py",
    "tests/worker/training/networks/architectures/test_audio_cnn.py",
)
GUARDS = (
    Guard(
        "a sound that was cut off is broken",
        "app/data/decode_sound.py",
        "    if _cut_short(content):\n",
        "    if False:\n",
        DECODING + "::test_what_is_no_sound_is_refused_with_what_it_is[14]",
    ),
    Guard(
        "a sound's header is held to limits",
        "app/data/decode_sound.py",
        "    if file.frames > MOST_FRAMES:\n",
        "    if False:\n",
        DECODING + "::test_what_is_no_sound_is_refused_with_what_it_is[25]",
    ),
    Guard(
        "samples are finite numbers",
        "app/data/decode_sound.py",
        "    if not np.isfinite(mono).all():\n",
        "    if False:\n",
        DECODING + "::test_what_is_no_sound_is_refused_with_what_it_is[32]",
    ),
    Guard(
        "a sound's answer does not depend on the other sounds of a batch",
        "worker/training/networks/architectures/audio_cnn.py",
        "top_db=UNREACHABLE_DB,",
        "top_db=80.0,",
        NETWORK + "::test_an_answer_does_not_depend_on_the_other_rows",
    ),
    Guard(
        "sounds of another rate are other inputs",
        "app/data/inputs/__init__.py",
        "input.features, input.rate, parts",
        "input.features, parts",
        NETWORK + "::test_data_of_another_rate_are_no_source",
    ),
)
