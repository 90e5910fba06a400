"""Guards of what is read from archives of files, and of the pictures in them."""

from __future__ import annotations

from tests.faults.guards.guard import Guard

ARCHIVE, DECODE = "app/data/intake/archive.py", "app/data/decode.py"
REFUSED = "tests/app/data/test_archives.py::test_a_malformed_archive_is_refused_in_words"
COUNTED = "tests/app/data/test_archives.py::test_a_malformed_member_is_counted_and_the_rest_is_read"
PICTURES = "tests/app/data/test_decode.py::test_what_is_no_picture_is_refused_with_what_it_is"
FILES, SERVER = "app/spec/files.py", "tests/app/api/test_server_files.py::"
GUARDS = (
    Guard(
        "a zip's members are counted, whatever it says",
        ARCHIVE,
        "    if entries > limits.files:\n",
        "    if False:\n",
        REFUSED + "[zip of too many that says it has one]",
    ),
    Guard(
        "members of a zip do not share their bytes",
        ARCHIVE,
        "    if compressed > size:",
        "    if False:",
        REFUSED + "[zip whose members overlap]",
    ),
    Guard(
        "members are no more than real data compress to",
        ARCHIVE,
        "    if total > max(MIB, limits.ratio * size):",
        "    if False:",
        REFUSED + "[zip of zeros compressed]",
    ),
    Guard(
        "a compressed tar is unpacked up to a size",
        ARCHIVE,
        "                    if done > most:\n",
        "                    if False:\n",
        REFUSED + "[gzip bomb]",
    ),
    Guard(
        "a tar does not lead back",
        ARCHIVE,
        "            if info.size < 0 or info.offset_data <= before:",
        "            if False:",
        REFUSED + "[tar that leads back]",
    ),
    Guard(
        "a link in a tar is not read",
        ARCHIVE,
        "    if not info.isreg():\n",
        "    if False:\n",
        COUNTED + "[a hard link]",
    ),
    Guard(
        "a picture has so many pixels",
        DECODE,
        "    if width * height > MOST_PIXELS:\n",
        "    if False:\n",
        PICTURES + "[20]",
    ),
    Guard(
        "only the known readers of pictures are asked",
        DECODE,
        "Image.open(io.BytesIO(content), formats=FORMATS)",
        "Image.open(io.BytesIO(content))",
        PICTURES + "[19]",
    ),
    Guard(
        "what cannot be written down is not repeated",
        "app/data/intake/folders.py",
        "counted.examples.append(shown(example))",
        "counted.examples.append(example)",
        "tests/app/data/test_archives.py::test_names_in_no_known_encoding_are_shown_as_far_as_they_can_be",
    ),
    Guard(
        "a file on the service's machine lies in an open folder",
        FILES,
        "            way = str(path.relative_to(home))",
        "            way = os.path.relpath(path, home)",
        SERVER + "test_nothing_outside_of_the_open_folders_is_read_or_told[/etc/passwd]",
    ),
    Guard(
        "no link on the way to a file is followed",
        FILES,
        "os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK",
        "os.O_RDONLY | os.O_NONBLOCK",
        SERVER + "test_a_link_that_is_put_on_the_way_meanwhile_is_not_followed",
    ),
    Guard(
        "JSON that names a file is no longer than other JSON",
        "app/api/receiving.py",
        ' and media_type_of(headers) != "application/json"',
        "",
        SERVER + "test_an_object_is_no_longer_than_other_json",
    ),
)
