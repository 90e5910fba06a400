"""Guards of what a request says: patterns, hints, numbers, and the document that describes it all."""

from __future__ import annotations

from tests.faults.guards.guard import Guard

TRANSFER, SPEC = "tests/worker/training/methods/test_transfer.py", "tests/app/test_spec.py"
CSV_TEST, NPZ_TEST = "tests/app/data/tabular/test_csv_text.py", "tests/app/data/test_npz_file.py"
CHANGED = "::test_a_whole_number_that_would_become_another_one_is_refused_with_its_row"
COMPARED = SPEC + "::test_a_hint_is_made_when_it_is_read_and_of_no_more_names_than_an_answer_may_compare"
OPENAPI = "tests/app/api/test_openapi.py::"
REQUIRED = OPENAPI + "test_a_field_is_required_in_the_schema_where_the_service_misses_it[transfer]"
MEDIA = OPENAPI + "test_every_media_type_of_an_artifact_is_in_the_document"
OWN_PATH = OPENAPI + "test_a_path_of_its_own_is_not_taken_for_a_thing_beside_it"
GUARDS = (
    Guard(
        "patterns of users run in RE2",
        "worker/training/methods/_layer_choice.py",
        'pattern = re2.compile(freeze.regex or "", _RE2)',
        'pattern = __import__("re").compile(freeze.regex or "")',
        TRANSFER + "::test_no_pattern_takes_longer_than_its_name_is_long",
    ),
    Guard(
        "patterns have a bound of memory",
        "worker/training/methods/_layer_choice.py",
        "_RE2.max_mem = 1 << 18\n",
        "",
        TRANSFER + "::test_a_pattern_that_is_refused_is_told_its_syntax_and_not_repeated",
    ),
    Guard(
        "an answer compares so many names",
        "app/spec/faults.py",
        "hint = str(hint) if left >= 0 else None",
        "hint = str(hint)",
        COMPARED,
    ),
    Guard(
        "a refusal holds so many faults",
        "app/spec/faults.py",
        "self.faults = list(islice(faults, MOST))",
        "self.faults = list(faults)",
        COMPARED,
    ),
    Guard(
        "a transaction that was cut off is the database's fault",
        "app/api/problems.py",
        " | InternalError(connection_invalidated=True):",
        ":",
        "tests/app/api/test_cpu_bounds.py::test_a_transaction_that_the_database_cuts_off_is_503",
    ),
    Guard(
        "a range holds no blanks",
        "app/api/files.py",
        'r"bytes=(\\d{0,18})-(\\d{0,18})"',
        'r"bytes\\s*=\\s*(\\d{0,18})\\s*-\\s*(\\d{0,18})\\s*"',
        "tests/app/api/test_files.py::test_a_range_full_of_blanks_is_left_unread_at_once",
    ),
    Guard(
        "a secret is found without its scheme",
        "app/logs.py",
        're.compile(r"(://[^\\s/:@]*)',
        're.compile(r"(?i)(\\b[a-z][a-z0-9+.-]*://[^\\s/:@]*)',
        "tests/app/test_logs.py::test_a_long_line_is_searched_in_a_second_of_the_processor",
    ),
    Guard(
        "a row of words costs its own words",
        "app/data/inputs/table.py",
        "_of_columns(row, columns, input, numbers, place, faults)",
        "_of_columns(row, _columns(input), input, numbers, place, faults)",
        "tests/app/data/test_encode.py::test_rows_of_words_take_no_time_for_each_word_that_they_do_not_hold",
    ),
    Guard(
        "a key has a length",
        "app/api/bodies.py",
        "if len(key) > LONGEST_KEY else None",
        "if False else None",
        "tests/app/api/test_bodies.py::test_a_key_that_no_name_could_be_is_refused_without_being_repeated",
    ),
    Guard(
        "whole numbers beyond 2^24 are refused, CSV",
        "app/data/tabular/features.py",
        "fault = columns.fault_in_whole_numbers(cells.numbers, cells.place, cells.written)",
        "fault: Fault | None = None",
        CSV_TEST + CHANGED,
    ),
    Guard(
        "whole numbers beyond 2^24 are refused, NPZ",
        "app/data/inputs/table.py",
        "    whole = _whole_number_faults(values, names, place)\n",
        "    whole = list[Fault]()\n",
        NPZ_TEST + CHANGED,
    ),
    Guard(
        "whole numbers beyond 2^24 are refused, targets",
        "app/data/columns.py",
        "    fault = fault_in_whole_numbers(values, place, written)\n    if fault:\n        return fault\n",
        "",
        NPZ_TEST + CHANGED,
    ),
    Guard(
        "whole numbers beyond 2^53 are refused, CSV",
        "app/data/tabular/cells.py",
        "fault or _fault_in_large(made, texts, np.flatnonzero(~missing_words), values, written)",
        "fault",
        CSV_TEST + "::test_classes_are_whole_numbers_as_they_were_written",
    ),
    Guard(
        "class numbers are compared in their own type",
        "app/data/npz_file.py",
        "return columns.of_codes(name, values, classes, place, limits)",
        "return columns.of_codes(name, values.astype(np.int64), classes, place, limits)",
        NPZ_TEST + "::test_a_class_number_that_no_int64_holds_is_refused_and_not_missing",
    ),
    Guard(
        "a schema requires the kind",
        "app/api/schemas.py",
        "        _require(definitions[name], tag)\n",
        "        pass\n",
        REQUIRED,
    ),
    Guard(
        "a schema requires what tells branches apart",
        "app/api/schemas.py",
        'if "discriminator" in node:',
        'if "no discriminator" in node:',
        REQUIRED,
    ),
    Guard(
        "a spec's integers have bounds",
        "app/api/schemas.py",
        'node.setdefault("maximum", INTEGERS[-1])',
        "pass",
        OPENAPI + "test_every_integer_of_a_spec_has_bounds",
    ),
    Guard(
        "a file's name decides its media type",
        "app/artifacts.py",
        "MEDIA_TYPES.get(Path(name).suffix, OTHER_MEDIA_TYPE)",
        "OTHER_MEDIA_TYPE",
        MEDIA,
    ),
    Guard(
        "the document names every media type",
        "app/api/files.py",
        "sorted({*artifacts.MEDIA_TYPES.values(), artifacts.OTHER_MEDIA_TYPE})",
        "[artifacts.OTHER_MEDIA_TYPE]",
        MEDIA,
    ),
    Guard(
        "the cursor's pattern is documented",
        "app/api/deps.py",
        ', json_schema_extra={"pattern": _CURSOR}',
        "",
        OPENAPI + "test_a_text_parameter_has_a_pattern_unless_any_text_is_taken",
    ),
    Guard(
        "no parameter is null",
        "app/api/docs.py",
        'parameter["schema"] = _without_null(parameter["schema"])',
        "pass",
        OPENAPI + "test_no_parameter_is_said_to_be_null",
    ),
    Guard("validate is no job", "app/api/deps.py", 'regex = "job_[^/]+"', 'regex = "[^/]+"', OWN_PATH),
    Guard(
        "predict is no model",
        "app/api/deps.py",
        'regex = ".*(?<!/predict)(?<!/file)"',
        'regex = ".*(?<!/file)"',
        OWN_PATH,
    ),
    Guard(
        "answers require what always comes",
        "app/spec/base.py",
        "json_schema_serialization_defaults_required=True",
        "json_schema_serialization_defaults_required=False",
        OPENAPI + "test_an_answer_s_fields_are_required_where_they_always_come",
    ),
    Guard(
        "a report has no key that nobody described",
        "app/spec/base.py",
        'extra="forbid", strict=True, allow_inf_nan=False, frozen=True',
        'extra="ignore", strict=True, allow_inf_nan=False, frozen=True',
        "tests/app/test_report.py::test_a_key_that_nobody_described_is_refused_by_the_model_and_by_the_schema[transfer]",
    ),
)
