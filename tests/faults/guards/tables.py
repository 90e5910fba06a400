"""Guards of what a table holds: gaps, categories, and files that are more than they seem."""

from __future__ import annotations

from tests.faults.guards.guard import Guard

READING, PREPARED = "tests/app/data/tabular/", "tests/worker/training/data/test_preparation.py"
GUARDS = (
    Guard(
        "all that is missing is alike",
        "app/data/table.py",
        "seen[np.isnan(seen)] = np.nan",
        "pass",
        "tests/app/data/test_table.py::test_what_is_missing_is_missing_whatever_its_bits",
    ),
    Guard(
        "a gzip archive is unpacked up to a size",
        "app/data/tabular/gzipped.py",
        "min(limits.decoded_bytes, max(MIB, limits.ratio * size))",
        "limits.decoded_bytes",
        READING + "test_gzipped.py::test_a_bomb_is_refused_before_it_is_unpacked[csv]",
    ),
    Guard(
        "an open quote swallows no rows",
        "app/data/tabular/csv_text.py",
        "    if quotes % 2:\n        _check_quotes(cells)\n",
        "",
        READING + "test_csv_text.py::test_a_quote_that_is_never_closed_swallows_no_rows",
    ),
    Guard(
        "a Parquet file's metadata are held to the limits",
        "app/data/tabular/parquet.py",
        "if decoded > limits.decoded_bytes or stored < 0 or values < 0:",
        "if False:",
        READING + "test_parquet.py::test_what_the_metadata_say_is_enough_to_refuse",
    ),
    Guard(
        "medians and words are those of the training rows",
        "worker/training/data/preparation.py",
        "for block in blocks(source, rows))",
        "for block in blocks(source, np.arange(len(source))))",
        PREPARED + "::test_no_held_out_row_is_seen_by_medians_classes_or_scaling[test]",
    ),
    Guard(
        "noise leaves categories alone",
        "worker/training/data/scaling.py",
        "return std if self.preparation is None else self.preparation.of_raw(std)",
        "return std[: len(self.preparation.features)] if self.preparation else std",
        PREPARED + "::test_noise_is_added_to_numbers_and_to_nothing_else",
    ),
    Guard(
        "a tokenizer is fitted on the training rows",
        "worker/training/data/tokens.py",
        "for block in blocks(source, np.sort(rows)) for text",
        "for block in blocks(source, np.arange(len(source))) for text",
        "tests/worker/training/test_leaks.py::test_nothing_that_is_fitted_has_seen_a_held_out_row[text in tokens]",
    ),
    Guard(
        "numbers of tokens and their tokenizer go together",
        "worker/training/data/inputs/text.py",
        "or EMBEDDING not in copied:",
        "or True:",
        "tests/worker/training/kept/test_tokens.py::test_a_copied_embedding_brings_its_tokenizer",
    ),
)
