# SPDX-License-Identifier: Apache-2.0
"""What ei-bench finds of itself, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_imprint_runtime.reporting.schema import read_report
from tests.c.benching import QUICK, Bench


@pytest.fixture
def busy() -> Iterator[None]:
    """All cores are kept busy by others."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.usefixtures("busy")
def test_a_busy_machine_is_found_out(bench: Bench, tiny_model: Path) -> None:
    verdict = bench.report(tiny_model, "--duration", "1s")["verdict"]
    assert not verdict["stable"]
    severe = {one["code"] for one in verdict["findings"] if one["severe"]}
    assert severe & {"other_load", "steal", "throttle"}


def test_too_few_samples_are_noted(bench: Bench, tiny_model: Path) -> None:
    findings = bench.report(tiny_model, "--iterations", 20)["verdict"]["findings"]
    (one, two) = [f for f in findings if f["code"] == "too_few_samples"]
    assert (one["series"], two["series"]) == ("fused", "backbone only")


# What it refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--concurrency 0", "--concurrency must be a whole number from 1 to 256, got '0'"),
        ("--concurrency x", "--concurrency must be a whole number from 1 to 256, got 'x'"),
        ("--rate 20", "must be calls a second such as 20/s, or a share such as 80%, got '20'"),
        ("--rate -5/s", "must be calls a second such as 20/s, or a share such as 80%"),
        ("--rate 0/s", "--rate must be above 0"),
        ("--rate 1001%", "--rate must be above 0 % and at most 1000% of the throughput"),
        ("--rate 2000000/s", "--rate must be above 0 and at most 1000000 a second"),
        ("--cold -1", "--cold must be a whole number from 0 to 1000, got '-1'"),
        ("--warm-up 0s", "--warm-up must be above 0 s"),
        ("--warm-up 61m", "--warm-up must be above 0 s and at most an hour, got 3660 s"),
        ("--warm-up long", "must be seconds such as 30s, or minutes such as 2m, got 'long'"),
        ("--duration 1e3", "must be seconds such as 30s, or minutes such as 2m"),
        ("--duration 2000m", "--duration must be above 0 s and at most a day"),
        ("--duration 1s --iterations 5", "give --iterations or --duration, not both"),
        ("--iterations 0", "--iterations must be a whole number from 1 to 2000000"),
        ("--iterations 2000000 --batch 1,2", "at most 1500000 in each of so many series"),
        ("--batch 0", "--batch must be numbers from 1 to 4096, got 0"),
        ("--batch 1,", "--batch must be numbers from 1 to 4096 such as 1,8"),
        ("--batch 5000", "--batch must be numbers from 1 to 4096, got 5000"),
        ("--frame-size 16", "--frame-size must be a size such as 640x480"),
        ("--frame-size 16x16", "the model takes images of one size; leave out --frame-size"),
        ("--mlperf --batch 8", "MLPerf's single stream is one query of one image"),
        ("--mlperf --concurrency 2", "MLPerf's single stream is one query of one image"),
        ("--mlperf --rate 5/s", "MLPerf's single stream is one query of one image"),
        ("--mlperf --stages", "MLPerf's single stream is one query of one image"),
        ("--mlperf --beside x", "--beside is measured in turns, which goes with neither"),
        ("--concurrency 2 --beside x", "--beside is measured in turns"),
        ("--layers", "--layers is not here: ONNX Runtime's C interface"),
        ("--provider npu", "--provider must be one of cpu, cuda, tensorrt, got 'npu'"),
        ("--threads 1000", "as many cores as this process may use, got 1000: more of them"),
        ("--label=", "a label has 1 to 300 characters"),
        ("--lable x", "there is no option '--lable'"),
        ("second.onnx", "one MODEL is measured; another goes with --beside"),
    ],
)
def test_a_bad_value_is_one_line_and_status_2(
    bench: Bench, tiny_model: Path, arguments: str, said: str
) -> None:
    done = bench(tiny_model, *arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_help_and_nothing_at_all(bench: Bench) -> None:
    done = bench("--help")
    assert done.returncode == 0
    assert "Usage: ei-bench [OPTIONS] MODEL" in done.stdout
    assert "--first-label" not in done.stdout
    assert all(len(line) <= 88 for line in done.stdout.splitlines())
    done = bench()
    assert done.returncode == 2
    assert "name the MODEL to be measured" in done.stderr


def test_files_that_are_no_models(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no model")
    for name, said in (("none.onnx", "none.onnx"), ("text", "text")):
        done = bench(tmp_path / name)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert said in line


def test_outputs_are_refused_before_the_work(
    bench: Bench, tiny_model: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there.json"
    there.write_text("old")
    model = shutil.copy(tiny_model, tmp_path / "model.onnx")
    start = time.monotonic()
    for out, more, said in (
        (there, [], "there.json exists already; pass --force to replace it"),
        (tmp_path, [], "it is a folder; name a file in it"),
        (f"{tmp_path}/new/", [], "it is a folder; name a file in it"),
        (tmp_path / ("x" * 300), [], "file name too long"),
        (tmp_path / "no" / "r.json", [], f"there is no folder {tmp_path}/no"),
        (model, ["--force"], "it is what this is made from; name another file"),
        ("/dev/null", ["--force"], "it is not a regular file"),
    ):
        done = bench(model, "--duration", "100s", "--out", out, *more)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert said in line
    assert time.monotonic() - start < 90
    assert there.read_text() == "old"
    done = bench(tiny_model, "--iterations", 10, *QUICK, "--out", there, "--force")
    assert done.returncode == 0, done.stderr
    assert read_report(there).data["model"]["file"] == str(tiny_model)


@pytest.mark.parametrize("of", ["--head", "--beside"])
def test_a_head_is_never_replaced(
    bench: Bench, tiny_model: Path, tmp_path: Path, of: str
) -> None:
    other = Path(shutil.copy(tiny_model, tmp_path / "other.onnx"))
    head = tmp_path / "other.onnx.head"
    head.write_text("taught for hours")
    named = head if of == "--head" else other
    done = bench(tiny_model, of, named, "--out", head, "--force")
    assert done.returncode == 1
    assert "it is what this is made from; name another file" in done.stderr
    assert head.read_text() == "taught for hours"


def test_names_that_no_reader_takes_are_refused_before_the_work(
    bench: Bench, tiny_model: Path, tmp_path: Path
) -> None:
    deep = tmp_path
    for _ in range(3):
        deep /= "n" * 100
    deep.mkdir(parents=True)
    beside = [shutil.copy(tiny_model, folder / "o.onnx") for folder in (tmp_path, deep)]
    done = bench(tiny_model, "--beside", beside[0], "--beside", beside[1])
    assert (done.returncode, done.stdout) == (2, "")
    assert "a series has a name of 300 characters at most" in done.stderr
    done = bench(tiny_model, "--label", "\udcff" * 76)  # each is written as four
    assert done.returncode == 2
    assert "a label has 1 to 300 characters" in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_a_report_that_can_not_be_kept_was_shown(
    bench: Bench, tiny_model: Path, tmp_path: Path, as_json: bool
) -> None:
    """The folder goes away while it measures: the figures do not."""
    folder = tmp_path / "gone"
    folder.mkdir()
    arguments = ["--duration", "3s", *QUICK, "--out", str(folder / "r.json")]
    with bench.start(tiny_model, *arguments, *(["--json"] if as_json else [])) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("measuring batch 1")
        folder.rmdir()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    last = err.splitlines()[-1]
    assert last == f"error: cannot write {folder}/r.json: there is no folder {folder}"
    if as_json:
        assert json.loads(out)["schema"] == "edge-imprint.report/1"
    else:
        assert "p50 ms" in out
        assert "note: the figures above are all there is now" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", [[], ["--concurrency", "2"], ["--rate", "5/s"], ["--mlperf"]])
def test_an_interrupt_leaves_no_file(
    bench: Bench,
    tiny_model: Path,
    tmp_path: Path,
    mode: list[str],
    number: signal.Signals,
) -> None:
    out = tmp_path / "report.json"
    arguments = ["--duration", "60s", "--warm-up", "0.1s", *mode, "--out", str(out)]
    with bench.start(tiny_model, *arguments) as process:
        assert process.stderr is not None
        if mode:
            assert process.stderr.readline().startswith("note: the backbone alone")
        assert process.stderr.readline().startswith("measuring ")
        time.sleep(0.4)
        process.send_signal(number)
        said, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted; no file was left half-written"
    assert said == ""
    assert list(tmp_path.iterdir()) == []


def test_stdout_that_is_full_is_an_error(bench: Bench, tiny_model: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [bench.program, tiny_model, "--iterations", "20", *QUICK],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=bench.environment,
            check=False,
            timeout=300,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: stdout can't be written to its end"


def test_a_reader_that_left_costs_no_report(
    bench: Bench, tiny_model: Path, tmp_path: Path
) -> None:
    """As of `ei-bench ... | head`: what was measured still goes into the file."""
    out = tmp_path / "report.json"
    arguments = ["--iterations", "20", *QUICK, "--out", str(out)]
    with bench.start(tiny_model, *arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=300) == 1
    assert err.splitlines()[-1] == "error: stdout can't be written to its end"
    assert read_report(out).data["series"][0]["iterations"] == 20
