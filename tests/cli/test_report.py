# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint report`, run as a user runs it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_imprint_runtime.reporting.schema import write_report
from edge_imprint_runtime.reporting.words import figure
from tests.report_example import DRIFT, MACHINE, example_report, smallest_report

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of reports: whole, base, fast, slow, unstable and other."""
    root = tmp_path_factory.mktemp("runs")
    for name, made in {
        "whole": example_report(300),
        "base": smallest_report(2.0),
        "fast": smallest_report(1.6, seed=1),
        "slow": smallest_report(2.2, seed=2),
        "unstable": smallest_report(2.0, seed=3, stable=False),
        "other": smallest_report(2.0, seed=4, machine=MACHINE | {"cpu_model": "Cortex-A78AE"}),
    }.items():
        write_report(root / f"{name}.json", made)
    return root


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.splitlines()[-1]


# One ---------------------------------------------------------------------------------------


def test_one_report(run: Run, runs: Path) -> None:
    done = run("report", runs / "whole.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "shop.onnx on AMD EPYC 7B13",
        "CPUExecutionProvider, onnxruntime 1.31.1; measured 2026-11-22 11:00 UTC",
        "this run is stable",
    ]
    for text in (
        *("Latency in ms", "the head at batch 8: ", "Stages of a call", "Under load"),
        *("Layers that take longest", "MLPerf Inference, single stream: ", "cold start: "),
        *("memory: ", "energy: an image 23.10 mJ"),
    ):
        assert text in done.stdout


def test_a_narrow_terminal_breaks_no_figure(run: Run, runs: Path) -> None:
    wide = run("report", runs / "whole.json", env={"COLUMNS": "120"}).stdout
    narrow = run("report", runs / "whole.json", env={"COLUMNS": "40"}).stdout
    series = json.loads((runs / "whole.json").read_text())["series"]
    for one in series:
        if one["stage"] == "whole":
            assert f" {figure(one['p95_ms'])} " in narrow
    low, high = (figure(bound) for bound in series[0]["intervals_ms"]["p50"])
    assert f"{figure(series[0]['p50_ms'])} ({low} to {high})" in wide
    assert "\n  backbone/conv0/Conv: operator Conv; mean ms 0.4000; share 40.0 %\n" in narrow
    assert max(len(line) for line in narrow.splitlines() if line[:1] in "┃│┏└") <= 40


def test_an_unstable_one_is_shown_and_says_so(run: Run, runs: Path) -> None:
    done = run("report", runs / "unstable.json")
    assert done.returncode == 0
    assert "this run is NOT stable\n  NOT stable: fused, batch 1: the median" in done.stdout


def test_one_as_json(run: Run, runs: Path) -> None:
    done = run("report", runs / "whole.json", "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert said["schema"] == "edge-imprint.report/1"
    assert [series["name"] for series in said["series"]][:2] == ["fused", "backbone only"]
    assert "samples_ns" not in said["series"][0]
    assert [cost["batch"] for cost in said["head"]] == [1, 8]
    assert len(done.stdout) < 20_000


def test_files_are_written_and_not_replaced(run: Run, runs: Path, tmp_path: Path) -> None:
    html, markdown = tmp_path / "p.html", tmp_path / "p.md"
    files = ("--html", html, "--markdown", markdown)
    done = run("report", runs / "base.json", *files)
    assert done.returncode == 0, done.stderr
    page, text = html.read_text(), markdown.read_text()
    assert page.startswith('<!doctype html><html lang="en">')
    assert text.startswith("# Latency of shop.onnx")
    done = run("report", runs / "fast.json", *files)
    assert done.returncode == 1
    assert error_of(done) == (
        f"error: {html} exists already; pass --force (in Python force=True) to replace it"
    )
    assert done.stdout == ""
    assert (html.read_text(), markdown.read_text()) == (page, text)
    assert run("report", runs / "fast.json", *files, "--force").returncode == 0
    assert html.read_text() != page
    assert markdown.read_text() != text


@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_a_report_is_not_written_over(
    run: Run, runs: Path, option: str, tmp_path: Path
) -> None:
    path = runs / "base.json"
    old = path.read_bytes()
    done = run("report", path, option, path, "--force")
    assert done.returncode == 1
    assert error_of(done) == (
        f"error: cannot write {path}: it is what this is made from; name another file"
    )
    assert path.read_bytes() == old
    out = tmp_path / "x"
    done = run("report", path, "--html", out, "--markdown", out)
    assert error_of(done) == f"error: cannot write {out}: it is named twice; name another file"
    assert not out.exists()


@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_a_full_disk_keeps_the_old_file(
    run: Run, runs: Path, option: str, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    done = run(
        *("report", runs / "base.json", option, old, "--force"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)),
    )
    assert done.returncode == 1
    assert error_of(done) == f"error: cannot write {old}: file too large"
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_a_folder_that_is_not_there(run: Run, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "none" / "p.html"
    done = run("report", runs / "base.json", "--html", out)
    assert done.returncode == 1
    assert error_of(done) == (
        f"error: cannot write {out}: there is no folder {tmp_path / 'none'}"
    )


# What can't be read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:-100], "is no report: it is not JSON from line"),
        (
            lambda text: text.replace('"p50_ms": ', '"p50_ms": 1'),
            "is no sound report: series[0].p50_ms is 1",
        ),
        (lambda text: text.replace("report/1", "report/2"), "is of the schema"),
        (lambda _: '{"schema": "edge-imprint.bench/1"}', "is no report of edge-imprint: its"),
    ],
    ids=["torn", "changed", "newer", "old"],
)
def test_files_that_are_no_reports(
    run: Run, runs: Path, change: Callable[[str], str], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    path.write_text(change((runs / "base.json").read_text()))
    done = run("report", runs / "base.json", path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {path} {says}")


# Several -----------------------------------------------------------------------------------


def test_two_reports(run: Run, runs: Path, tmp_path: Path) -> None:
    files = ("--html", tmp_path / "c.html", "--markdown", tmp_path / "c.md")
    done = run("report", runs / "base.json", runs / "fast.json", *files)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "base.json: shop.onnx, CPUExecutionProvider on AMD EPYC 7B13",
        "fast.json: shop.onnx, CPUExecutionProvider on AMD EPYC 7B13",
        "both ran the same model file (sha256 abababababab...)",
    ]
    assert lines[3].startswith("fused, batch 1: fast.json is 1.2")
    assert "the reports know of nothing that differs between the runs" in done.stdout
    assert done.stderr.startswith("note: two runs of one thing may differ by 1 or 2 %")
    assert "fast.json beside base.json" in (tmp_path / "c.html").read_text()
    assert (tmp_path / "c.md").read_text().startswith("# fast.json beside base.json")


def test_two_as_json(run: Run, runs: Path) -> None:
    done = run("report", runs / "base.json", runs / "slow.json", "--json")
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["base"] == "base.json"
    assert said["series"][0]["significant"]
    assert 1.05 < said["series"][0]["ratio"] < 1.15


def test_slower_than_allowed(run: Run, runs: Path, tmp_path: Path) -> None:
    base, slow, fast = (runs / f"{name}.json" for name in ("base", "slow", "fast"))
    html = tmp_path / "c.html"
    done = run("report", base, slow, "--fail-if-slower", "5%", "--html", html)
    assert done.returncode == 1
    assert error_of(done).startswith(
        "error: slower by more than 5 %: fused, batch 1: slow.json takes 1."
    )
    assert html.exists()  # why, for who looks at it
    assert run("report", base, slow, "--fail-if-slower", "25%").returncode == 0
    assert run("report", base, fast, "--fail-if-slower", "0%").returncode == 0
    assert run("report", base, fast, slow, "--fail-if-slower", "5 %").returncode == 1


def test_what_runs_cannot_tell_is_said(run: Run, runs: Path) -> None:
    base, same = runs / "base.json", runs / "other.json"
    done = run("report", base, same, "--fail-if-slower", "0.01%", "--json")
    assert done.returncode == 0
    (pair,) = json.loads(done.stdout)["series"]
    low, high = pair["interval"]
    assert error_of(done) == (
        f"WARNING: these runs can't tell 0.01 %: the ratio of fused, batch 1 is {low:.2f} to "
        f"{high:.2f}; take more samples, or more runs a side"
    )


def test_what_is_gone_is_not_passed(run: Run, runs: Path) -> None:
    whole, base = runs / "whole.json", runs / "base.json"
    done = run("report", whole, base, "--fail-if-slower", "50%")
    assert done.returncode == 1
    assert error_of(done) == (
        f"error: {base} has no series backbone only, batch 1; fused, batch 8; backbone only, "
        "batch 8; fused, batch 1, 100 calls/s offered; fused, batch 1, 300 calls/s offered, "
        "which the base whole.json has; measure it again"
    )
    assert run("report", base, whole, "--fail-if-slower", "50%").returncode == 0


@pytest.mark.parametrize("share", ["5", "x%", "-5%", "0.05", "5%%"])
def test_a_share_that_is_none(run: Run, runs: Path, share: str) -> None:
    done = run("report", runs / "base.json", runs / "slow.json", f"--fail-if-slower={share}")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: Invalid value for --fail-if-slower: must be a share such as 5%, got {share!r}"
        "; see 'edge-imprint report --help'\n"
    )


def test_a_share_for_one_report(run: Run, runs: Path) -> None:
    done = run("report", runs / "base.json", "--fail-if-slower", "5%")
    assert done.returncode == 2
    assert "takes two reports or more: the base, and what is held against it" in done.stderr


def test_an_unstable_run_is_refused(run: Run, runs: Path) -> None:
    both = runs / "base.json", runs / "unstable.json"
    done = run("report", *both)
    assert done.returncode == 1
    assert done.stdout == ""
    assert error_of(done) == (
        f"error: an unstable run says nothing beside another: {both[1]} (drift); "
        "measure it again, or pass --force (in Python force=True)"
    )
    done = run("report", *both, "--force")
    assert done.returncode == 0
    assert done.stderr.startswith(f"WARNING: unstable.json is NOT stable: {DRIFT['text']}\n")


def test_other_devices_are_said(run: Run, runs: Path) -> None:
    done = run("report", runs / "base.json", runs / "other.json")
    assert done.returncode == 0
    assert done.stderr.startswith(
        "WARNING: these are DIFFERENT DEVICES (base.json: AMD EPYC 7B13; other.json: "
        "Cortex-A78AE)\n"
    )


def test_no_report_at_all(run: Run) -> None:
    done = run("report")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Missing argument 'REPORT [REPORT...]'")


# On a device -------------------------------------------------------------------------------


def test_a_device_needs_no_more_than_the_runtime(runs: Path, tmp_path: Path) -> None:
    """Everything but charts works where matplotlib, onnx and torch are not installed."""
    code = (
        "import sys\n"
        "for name in ('matplotlib', 'onnx', 'torch', 'onnxruntime', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "from edge_imprint.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    reports = [str(runs / f"{name}.json") for name in ("base", "fast")]
    for number, given in enumerate((reports[:1], reports)):
        out = tmp_path / str(number)
        done = subprocess.run(
            [
                *(sys.executable, "-c", code, "report", *given),
                *("--html", f"{out}.html", "--markdown", f"{out}.md"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "package matplotlib" in Path(f"{out}.html").read_text()
        assert "<svg" not in Path(f"{out}.html").read_text()
        assert Path(f"{out}.md").read_text().startswith("# ")
