# SPDX-License-Identifier: Apache-2.0
"""Reading and writing reports: strict, so that a figure read is one that was measured."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import OutputWriteError, ReportFileError, ReportVersionError
from edge_imprint_runtime.files import check_output, write_atomic
from edge_imprint_runtime.measuring.blocks import nearest_rank
from edge_imprint_runtime.measuring.series import rate_text
from edge_imprint_runtime.reporting.form import PERCENT_KEYS, SCHEMA, check_form
from edge_imprint_runtime.reporting.shape import ShapeError

__all__ = [
    "MAX_BYTES",
    "Key",
    "Recorded",
    "Report",
    "SCHEMA",
    "key_terms",
    "key_title",
    "percentile",
    "read_report",
    "write_report",
]

MAX_BYTES = 256 * 1024 * 1024
_FAMILY = "edge-imprint.report/"
_AGAIN = "measure again with edge-imprint bench MODEL --out FILE"

Key = tuple[str, int, int, str, float | None]


@dataclass(frozen=True)
class Recorded:
    """One series of a report.

    Attributes:
        summary: Its keys and values as the file has them, but for the three lists.
        samples_ns: (S,) int64 nanoseconds, in the order in which they began.
        starts_ns: (S,) int64 nanoseconds since the run began; None: not known.
        warm_up_ns: (W,) int64 nanoseconds of the calls before.
    """

    summary: dict[str, Any]
    samples_ns: npt.NDArray[np.int64]
    starts_ns: npt.NDArray[np.int64] | None
    warm_up_ns: npt.NDArray[np.int64]

    @property
    def key(self) -> Key:
        """What makes it the counterpart of a series of another report."""
        s = self.summary
        return (s["name"], s["batch"], s["concurrency"], s["stage"], s["offered_per_s"])

    @property
    def name(self) -> str:
        """What ran."""
        return str(self.summary["name"])

    @property
    def batch(self) -> int:
        """Images a sample."""
        return int(self.summary["batch"])

    @property
    def whole(self) -> bool:
        """Whether its samples are whole calls and not a stage of them."""
        return bool(self.summary["stage"] == "whole")

    @property
    def title(self) -> str:
        """Its name for people, with what tells it from the others."""
        return key_title(self.key)


@dataclass(frozen=True)
class Report:
    """A report that was read and found sound.

    Attributes:
        path: Its file.
        data: All of it, as ``docs/report.schema.json`` says.
        series: Its series, in the file's order.
    """

    path: Path
    data: dict[str, Any]
    series: tuple[Recorded, ...]

    @property
    def title(self) -> str:
        """Its label, or else its file's name."""
        return str(self.data["label"] or self.path.name)

    @property
    def model_name(self) -> str:
        """The name of the model's file, without its folder."""
        return re.split(r"[/\\]", str(self.data["model"]["file"]))[-1]

    @property
    def stable(self) -> bool:
        """Whether the run judged itself stable."""
        return bool(self.data["verdict"]["stable"])

    def find(self, key: Key) -> Recorded | None:
        """Return the series with this key; None where there is none."""
        return next((series for series in self.series if series.key == key), None)


def key_title(key: Key) -> str:
    """Return a series' name with what tells it from others: batch, callers, stage, rate."""
    return ", ".join((f"{key[0]}, batch {key[1]}", *key_terms(key)))


def key_terms(key: Key) -> tuple[str, ...]:
    """Return on what terms a series was measured, where they are not the usual ones."""
    _, _, concurrency, stage, offered = key
    terms = [] if concurrency == 1 else [f"{concurrency} callers"]
    if offered is not None:
        terms.append(f"{rate_text(offered)} calls/s offered")
    if stage != "whole":
        terms.append(stage)
    return tuple(terms)


def percentile(ordered: npt.NDArray[np.generic], percent: float) -> float:
    """Return the percentile of sorted values by nearest rank: a value that is among them."""
    return float(ordered[nearest_rank(len(ordered), percent) - 1])


def read_report(path: str | os.PathLike[str]) -> Report:
    """Read a report and hold its figures against its own samples.

    Args:
        path: The JSON file that ``bench`` wrote.

    Returns:
        The report.

    Raises:
        ReportFileError: The file can't be read, is none of ours, lacks a key or has one too
            many, or states a figure that its samples contradict.
        ReportVersionError: It is of a newer schema.
    """
    file = Path(path)
    return _sound(_parse(_bytes(file), file), file)


def write_report(
    path: str | os.PathLike[str], report: dict[str, Any], *, force: bool = False
) -> Path:
    """Write a report, after the checks of `read_report`.

    Args:
        path: The file to write.
        report: All of it, as ``docs/report.schema.json`` says; of Python's own types.
        force: Whether an existing file may be replaced.

    Returns:
        The path.

    Raises:
        ReportFileError: The report is not sound.
        OutputExistsError: The file is there and ``force`` is false.
        OutputWriteError: It can't be written; whatever was there before still is.
    """
    out = check_output(path, force=force)
    _sound(report, out)
    data = _lines(report).encode("utf-8", "surrogatepass")
    if len(data) > MAX_BYTES:
        raise OutputWriteError(
            f"cannot write {out}: the report is {len(data) / 1e6:.0f} MB and "
            f"{MAX_BYTES / 1e6:.0f} MB are the most that is read; take fewer samples"
        )
    return write_atomic(out, data, force=force)


def _lines(report: dict[str, Any]) -> str:
    """Return JSON with a line a key, and a line a series, so that people can look into it."""
    parts = []
    for key, value in report.items():
        text = json.dumps(value, allow_nan=False)
        if isinstance(value, list) and value:
            inner = ",\n".join(f"  {json.dumps(item, allow_nan=False)}" for item in value)
            text = f"[\n{inner}\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _bytes(file: Path) -> bytes:
    try:
        kind = os.stat(file)
        if stat.S_ISDIR(kind.st_mode):
            raise ReportFileError(f"{file} is a folder; name a report in it")
        if not stat.S_ISREG(kind.st_mode):
            raise ReportFileError(f"{file} is not a regular file; name a report")
        if kind.st_size > MAX_BYTES:
            raise ReportFileError(
                f"{file} is no report that is read: it has {kind.st_size / 1e6:.0f} MB, and "
                f"{MAX_BYTES / 1e6:.0f} MB are the most"
            )
        return file.read_bytes()
    except FileNotFoundError as error:
        raise ReportFileError(
            f"there is no report {file}; make it with bench --out"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ReportFileError(f"cannot read {file}: {str(reason).lower()}") from error


def _parse(data: bytes, file: Path) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise _DamagedError(f"the key {twice!r} stands twice in one object")
        return found

    def constant(name: str) -> float:
        raise _DamagedError(f"{name} is no value of JSON")

    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant
        )
    except _DamagedError as error:
        raise ReportFileError(f"{file} is no sound report: {error}; {_AGAIN}") from error
    except RecursionError as error:
        raise ReportFileError(f"{file} is no report: it is nested too deep") from error
    except UnicodeDecodeError as error:
        raise ReportFileError(f"{file} is no report: it is not text in UTF-8") from error
    except json.JSONDecodeError as error:
        raise ReportFileError(
            f"{file} is no report: it is not JSON from line {error.lineno}, column "
            f"{error.colno} on; {_AGAIN}"
        ) from error
    except ValueError as error:  # a number of more digits than Python reads
        raise ReportFileError(f"{file} is no report: a number in it is too long") from error


class _DamagedError(Exception):
    """What the JSON parser's hooks refuse."""


def _sound(data: Any, file: Path) -> Report:
    _check_version(data, file)
    try:
        check_form(data, "")
        report = Report(file, data, tuple(_recorded(s) for s in data["series"]))
        for number, series in enumerate(report.series):
            _check_summary(series, f"series[{number}]")
        _check_keys(report)
        _check_rest(data)
    except ShapeError as error:
        raise ReportFileError(f"{file} is no sound report: {error}; {_AGAIN}") from error
    return report


def _check_version(data: Any, file: Path) -> None:
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema == SCHEMA:
        return
    version = re.fullmatch(re.escape(_FAMILY) + "([0-9]{1,6})", str(schema))
    if version is None or int(version[1]) < 1:
        raise ReportFileError(
            f"{file} is no report of edge-imprint: its key schema is not {SCHEMA}"
        )
    raise ReportVersionError(
        f"{file} is of the schema {schema}, and this release reads {SCHEMA}; "
        "update edge-imprint, or measure again with this one"
    )


def _recorded(series: dict[str, Any]) -> Recorded:
    lists = ("samples_ns", "starts_ns", "warm_up_ns")
    samples, starts, warm_up = (np.array(series[key], np.int64) for key in lists)
    summary = {key: value for key, value in series.items() if key not in lists}
    return Recorded(summary, samples, starts if len(starts) else None, warm_up)


def _check_summary(series: Recorded, where: str) -> None:
    said, samples = series.summary, series.samples_ns
    for key, array in (("iterations", samples), ("warm_up_iterations", series.warm_up_ns)):
        if said[key] != len(array):
            list_key = "samples_ns" if key == "iterations" else "warm_up_ns"
            raise ShapeError(
                f"{where}.{key}", f"is {said[key]}, and {list_key} holds {len(array)} values"
            )
    if series.starts_ns is not None and len(series.starts_ns) != len(samples):
        raise ShapeError(
            f"{where}.starts_ns",
            f"holds {len(series.starts_ns)} values, and samples_ns {len(samples)}",
        )
    ordered = np.sort(samples)
    true_ms = {"min_ms": float(ordered[0]) / 1e6, "max_ms": float(ordered[-1]) / 1e6}
    true_ms |= {f"{key}_ms": percentile(ordered, p) / 1e6 for key, p in PERCENT_KEYS.items()}
    for key, value in true_ms.items():
        _check_same(said[key], value, 1e-9, f"{where}.{key}", "samples_ns")
    mean_ms = float(samples.mean(dtype=np.float64)) / 1e6
    _check_same(said["mean_ms"], mean_ms, 1e-6, f"{where}.mean_ms", "samples_ns")
    for key, bounds in said["intervals_ms"].items():
        if bounds is not None and bounds[0] > bounds[1]:
            raise ShapeError(f"{where}.intervals_ms.{key}", "ends before it begins")


def _check_same(said: float, true: float, share: float, where: str, of: str) -> None:
    if not math.isclose(said, true, rel_tol=share, abs_tol=1e-9):
        raise ShapeError(where, f"is {said:.6g}, and {of} say {true:.6g}")


def _check_keys(report: Report) -> None:
    seen: set[Key] = set()
    for number, series in enumerate(report.series):
        if series.key in seen:
            raise ShapeError(f"series[{number}]", f"is there twice: {series.title}")
        seen.add(series.key)


def _check_rest(data: dict[str, Any]) -> None:
    cold = data["cold_start"]
    if cold is not None:
        true = percentile(np.sort(np.array(cold["runs_ms"], np.float64)), 50)
        _check_same(cold["p50_ms"], true, 1e-9, "cold_start.p50_ms", "runs_ms")
    sensors = data["sensors"]
    if sensors is not None:
        times = sensors["times_s"]
        _check_rising(times, "sensors.times_s")
        for name, values in sensors["readings"].items():
            if len(values) != len(times):
                where = f"sensors.readings.{name[:60]}"
                raise ShapeError(
                    where, f"holds {len(values)} values, and times_s {len(times)}"
                )
    verdict = data["verdict"]
    severe = [finding["code"] for finding in verdict["findings"] if finding["severe"]]
    if verdict["stable"] and severe:
        raise ShapeError("verdict.stable", f"is true, beside a severe finding: {severe[0]}")


def _check_rising(values: Iterable[float], where: str) -> None:
    times = np.array(list(values), np.float64)
    if len(times) > 1 and (np.diff(times) < 0).any():
        raise ShapeError(where, "runs backwards")
