"""A Parquet file becomes a frame. What its columns are and how much they hold is read from the metadata, before anything is decoded.

Texts stay as they are stored, each once and its place in every row: a small file may name a long text in millions of rows.
"""

from __future__ import annotations

from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.data.names import fault_in_name
from app.data.tabular.frame import Frame, Named, check_names, check_rows, joined
from app.data.upload_limits import MIB, UploadLimits
from app.spec.faults import Fault, Invalid, pointer

BATCH = 65_536  # rows
MAGIC = b"PAR1"
DAMAGED = Fault(
    "/file", "the Parquet file is damaged, or uses what is not known here", "write it again, with pyarrow or pandas"
)
HINT = "write numbers, true and false, texts, dates or lists of texts, or leave the column out"


def read(file: IO[bytes], limits: UploadLimits, named: Named) -> Frame:
    """The values of a Parquet file.

    Raises:
        Invalid: with every fault of the first step that finds any: the metadata, the columns, the values.
    """
    try:
        with pq.ParquetFile(
            pa.PythonFile(file, "r"),
            thrift_string_size_limit=16 * MIB,
            thrift_container_size_limit=MIB,
            arrow_extensions_enabled=False,
        ) as metadata:
            texts = _check(metadata, limits)
            named(metadata.schema_arrow.names)
        with pq.ParquetFile(pa.PythonFile(file, "r"), read_dictionary=texts, arrow_extensions_enabled=False) as source:
            return _frame(source, limits)
    except pa.ArrowMemoryError:
        raise MemoryError from None
    except (pa.ArrowException, OSError, ValueError, KeyError):
        raise Invalid([DAMAGED]) from None


def _check(source: Any, limits: UploadLimits) -> list[str]:
    """The paths of the columns of texts; raises Invalid where the metadata say what may not be."""
    metadata, schema = source.metadata, source.schema_arrow
    check_names(schema.names, limits)
    check_rows(metadata.num_rows, limits)
    faults = [fault for fault in map(_fault_in_type, schema) if fault]
    if faults:
        raise Invalid(faults)
    stored = values = 0
    for group in range(metadata.num_row_groups):
        about = metadata.row_group(group)
        for number in range(about.num_columns):
            column = about.column(number)
            stored += column.total_uncompressed_size
            values += column.num_values
    decoded = max(stored, values * 4, metadata.num_rows * len(schema.names) * 4)
    if decoded > limits.decoded_bytes or stored < 0 or values < 0:
        message = f"its values take {decoded} bytes, at most {limits.decoded_bytes} are allowed"
        raise Invalid([Fault("/file", message, "send fewer rows or columns", "too_large")])
    return [
        column.path
        for column in (source.schema.column(number) for number in range(len(source.schema.names)))
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type == "STRING"
    ]


def _fault_in_type(field: Any) -> Fault | None:
    """A fault where a column is of a type that is not read."""
    if _known(field.type):
        return None
    place = pointer("file", "column", field.name if fault_in_name(field.name) is None else "?")
    return Fault(place, f"a column of type {str(field.type)[:80]} is not read", HINT)


def _known(type: Any) -> bool:
    of = pa.types
    if of.is_dictionary(type):
        return _known(type.value_type) and not of.is_list(type.value_type)
    if of.is_list(type) or of.is_large_list(type):
        return _is_text(type.value_type)
    return bool(
        of.is_integer(type) or of.is_floating(type) or of.is_boolean(type) or of.is_decimal(type) or of.is_null(type)
        or of.is_date(type) or of.is_timestamp(type) or _is_text(type)
    )  # fmt: skip


def _is_text(type: Any) -> bool:
    of = pa.types
    if of.is_dictionary(type):
        return _is_text(type.value_type)
    return bool(of.is_string(type) or of.is_large_string(type) or of.is_string_view(type))


def _frame(source: Any, limits: UploadLimits) -> Frame:
    chunks: dict[str, list[Any]] = {name: [] for name in source.schema_arrow.names}
    rows = 0
    for batch in source.iter_batches(BATCH, use_threads=False):
        rows += batch.num_rows
        check_rows(max(1, rows), limits)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            chunks[name].append(_plain(column))
    check_rows(rows, limits)
    if rows != source.metadata.num_rows:
        raise Invalid([DAMAGED])
    columns = {}
    for name in list(chunks):
        parts = chunks.pop(name)
        if pa.types.is_dictionary(parts[0].type):
            parts = [pa.chunked_array(parts).unify_dictionaries()]
        columns[name] = joined(parts, pa.null())
    return Frame(rows, columns)


def _plain(column: Any) -> Any:
    """A column in one of the types of a frame: the numbers of a dictionary, decimals and half floats as they are elsewhere."""
    of = pa.types
    column.validate(full=True)  # texts may hold anything
    if of.is_dictionary(column.type) and not _is_text(column.type):
        column = column.dictionary_decode()
    if of.is_decimal(column.type) or of.is_floating(column.type):
        return column.cast(pa.float64())
    return column.cast(pa.timestamp("s")) if of.is_date(column.type) else column
