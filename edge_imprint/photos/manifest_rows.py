# SPDX-License-Identifier: Apache-2.0
"""The rows of a manifest: a CSV file in UTF-8, or a Parquet file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from edge_imprint.photos.tar_headers import COMPRESSED
from edge_imprint_runtime.errors import ManifestError, MissingPackageError

__all__ = ["Row", "csv_rows", "parquet_rows"]

COLUMNS = ("path", "label", "split")

# What others call these columns.
_OTHER_NAMES = {
    "path": (
        *("file", "file_name", "filename", "filepath", "file_path", "image", "image_path"),
        *("img", "img_path", "photo", "uri", "url", "name"),
    ),
    "label": ("class", "class_name", "classname", "category", "target", "labels", "y", "tag"),
    "split": ("subset", "fold", "set", "partition"),
}

_UNPACK = "unpack it and name the folder (of archives only tar shards are read as they are)"
# What files of another kind begin with: what they are, what to do.
_KINDS = {
    b"PK\x03\x04": (
        "a zip file or a spreadsheet",
        f"{_UNPACK}, or save the spreadsheet as CSV",
    ),
    b"PK\x05\x06": ("an empty zip file", "give a folder or a CSV file"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z file", _UNPACK),
    b"Rar!\x1a\x07": ("a rar file", _UNPACK),
    **{magic: (f"compressed ({kind})", _UNPACK) for magic, kind in COMPRESSED.items()},
    b"\x89PNG": ("a photo", "name the folder of the class folders, or give a CSV file"),
    b"\xff\xd8\xff": ("a photo", "name the folder of the class folders, or give a CSV file"),
}
_TAR_MAGIC = slice(257, 262)


class Row(NamedTuple):
    """A row of a manifest.

    Attributes:
        line: Its line in a CSV file, its row in a Parquet file, from 1.
        path: As written there.
        label: The class.
        split: Empty where there is no such column.
    """

    line: int
    path: str
    label: str
    split: str


def csv_rows(file: IO[bytes], name: str, notes: list[str]) -> Iterator[Row]:
    """Read a CSV file.

    Args:
        file: Its bytes.
        name: Its name, for messages.
        notes: Where what a user should know is put.

    Yields:
        Its rows, without empty ones.

    Raises:
        ManifestError: It is no CSV in UTF-8, its columns are others, or a field is empty.
        OSError: It can't be read.
    """
    rows = csv.reader(_lines(file, name), strict=True)
    try:
        header = next((row for row in rows if row), [])
        path, label, split = _columns(header, name, notes, csv_text=True)
        for row in rows:
            if not row:
                continue
            if len(row) > len(header):
                raise ManifestError(
                    f"{name}, line {rows.line_num}: {len(row)} fields where the first line "
                    f"names {len(header)} columns; put a field that holds a comma in quotes"
                )
            row += [""] * (len(header) - len(row))
            class_ = row[label].strip()  # a blank after a comma makes no other class
            if not row[path] or not class_:
                raise ManifestError(f"{name}, line {rows.line_num}: path or label is empty")
            given = "" if split is None else row[split].strip()
            yield Row(rows.line_num, row[path], class_, given)
    except csv.Error as error:
        raise ManifestError(
            f"{name}, line {rows.line_num}: no CSV ({error}); put fields that hold commas, "
            "quotes or line breaks in quotes, quotes in them twice"
        ) from error


def parquet_rows(file: IO[bytes], name: str, notes: list[str]) -> Iterator[Row]:
    """Read a Parquet file, some rows at a time.

    Args:
        file: Its bytes.
        name: Its name, for messages.
        notes: Where what a user should know is put.

    Yields:
        Its rows; labels that are whole numbers as text.

    Raises:
        ManifestError: It is no Parquet, its columns are others, or a field is empty.
        MissingPackageError: pyarrow is not installed.
        OSError: It can't be read.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingPackageError("pyarrow", f"reading {name}", "data") from error
    try:
        table = pq.ParquetFile(file)
        schema = table.schema_arrow
        path, label, split = _columns(schema.names, name, notes, csv_text=False)
        used = [schema.names[i] for i in (path, label, split) if i is not None]
        for column in used:
            _check_type(schema.field(column).type, column, name)
        line = 0
        for batch in table.iter_batches(columns=used):
            columns = {column: batch.column(column).to_pylist() for column in used}
            splits = columns.get("split", [None] * len(batch))
            for where, class_, part in zip(
                columns["path"], columns["label"], splits, strict=True
            ):
                line += 1
                text = "" if class_ is None else str(class_).strip()
                if not where or not text:
                    raise ManifestError(f"{name}, row {line}: path or label is empty")
                yield Row(line, where, text, "" if part is None else str(part).strip())
    except (pa.ArrowException, UnicodeDecodeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0][:120].rstrip(".")
        raise ManifestError(
            f"cannot read {name} as Parquet: {first}; write it again, or give a CSV file"
        ) from error


def _check_type(kind: object, column: str, name: str) -> None:
    """Refuse a column of another type: a float as a label would be a rounding trap."""
    text = str(kind)
    if text.startswith("dictionary<values="):
        text = text.removeprefix("dictionary<values=").partition(",")[0]
    numbers = text.startswith(("int", "uint")) and column != "path"
    if not numbers and text not in ("string", "large_string", "string_view"):
        wanted = "text" if column == "path" else "text or whole numbers"
        raise ManifestError(
            f"the column {column!r} of {name} holds {text}; it must hold {wanted}"
        )


def _columns(
    header: Sequence[str], name: str, notes: list[str], *, csv_text: bool
) -> tuple[int, int, int | None]:
    """Find the columns path, label and split by name; note what the others are called."""
    twice = sorted({column for column in COLUMNS if header.count(column) > 1})
    if twice:
        raise ManifestError(f"{name} has the column {twice[0]!r} twice; take one out")
    missing = [column for column in COLUMNS[:2] if column not in header]
    if missing:
        raise ManifestError(_without(header, missing, name, csv_text=csv_text))
    others = [column for column in header if column not in COLUMNS]
    if others:
        named = ", ".join(repr(column) for column in others[:5])
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        notes.append(f"columns of {name} that are not used: {named}{more}")
    split = header.index("split") if "split" in header else None
    return header.index("path"), header.index("label"), split


def _without(header: Sequence[str], missing: list[str], name: str, *, csv_text: bool) -> str:
    renames = [
        f"{found!r} to {column}"
        for column in missing
        for found in [_other_name(header, column)]
        if found is not None
    ]
    if len(header) == 1 and csv_text:
        for sign, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if sign in header[0]:
                return f"{name} separates its columns by {called}; write commas instead"
    if len(renames) == len(missing):
        return f"{name} has no column {' or '.join(missing)}; rename {', '.join(renames)}"
    if csv_text:
        return (
            f"{name} must begin with a line that names the columns path,label, "
            "with a comma between them"
        )
    named = ", ".join(repr(column) for column in header[:5]) or "none"
    return f"{name} must have the columns path and label, it has: {named}"


def _other_name(header: Sequence[str], column: str) -> str | None:
    for found in header:
        plain = found.strip().lower()
        if plain == column or plain in _OTHER_NAMES[column]:
            return found
    return None


def _lines(file: IO[bytes], name: str) -> Iterator[str]:
    """Decode line by line, so that what is wrong has a line."""
    for number, line in enumerate(_bounded(file, name), 1):
        if number == 1:
            _check_kind(line, name)
            line = line.removeprefix(b"\xef\xbb\xbf")  # spreadsheets write a byte order mark
        if b"\0" in line:
            raise ManifestError(
                f"{name}, line {number}: holds a zero byte; save the manifest as CSV in "
                "UTF-8, or unpack it if it is an archive"
            )
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise ManifestError(
                f"{name}, line {number}: no UTF-8 (the byte 0x{line[error.start]:02x}); "
                "save the manifest as CSV in UTF-8"
            ) from error


def _bounded(file: IO[bytes], name: str, limit: int = 2**20) -> Iterator[bytes]:
    """Split into lines; one without end, as a file of another kind may have, is refused."""
    number, rest = 0, b""
    while chunk := file.read(2**16):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
        number += len(whole)
        if len(rest) > limit:
            raise ManifestError(
                f"{name}, line {number + 1}: longer than {limit:,} bytes; "
                "give a CSV file, or a folder (unpacked, if this is an archive)"
            )
    if rest:
        yield rest


def _check_kind(start: bytes, name: str) -> None:
    """Refuse what is well known to be something else."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ManifestError(f"{name} is in UTF-16; save the manifest as CSV in UTF-8")
    if start[_TAR_MAGIC] == b"ustar":
        raise ManifestError(f"{name} is a tar file, not a manifest; let its name end in .tar")
    for magic, (kind, advice) in _KINDS.items():
        if start.startswith(magic):
            raise ManifestError(f"{name} is {kind}, not a manifest; {advice}")
