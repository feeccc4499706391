# SPDX-License-Identifier: Apache-2.0
"""Does the bench know a good run from a bad one?

Two quiet runs: both are to call themselves stable, and to differ by no more than their
intervals. Then one in whose middle a busy loop starts on every core: it is to call itself
unstable. To be run on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from common import fused_file, write_result
from edge_imprint_runtime import open_model
from edge_imprint_runtime.measuring import Plan, model_subject, run_bench
from edge_imprint_runtime.measuring.difference import compare

BUSY = "while True: pass"
# One thread, since two that spin on two cores move by themselves on a machine that is shared;
# batches that take milliseconds, so that the samples kept are not hundreds of thousands.
THREADS = 1
BATCHES = {"demo": 8, "timm/resnet18": 1}


def run(path: Path, plan: Plan) -> dict[str, Any]:
    """Measure the model by itself, as the command does."""
    with open_model(path, "cpu", threads=THREADS) as model:
        return run_bench(model_subject(model), plan, path=path, backend="cpu")


def disturbed(path: Path, plan: Plan, wait_s: float) -> dict[str, Any]:
    """Measure, and start a busy loop on every core after a while."""
    others: list[subprocess.Popen[bytes]] = []

    def begin() -> None:
        for _ in range(multiprocessing.cpu_count()):
            others.append(subprocess.Popen([sys.executable, "-c", BUSY]))

    timer = threading.Timer(wait_s, begin)
    timer.start()
    try:
        return run(path, plan)
    finally:
        timer.cancel()
        timer.join()
        for other in others:
            other.kill()
            other.wait()


def warm_up_s(report: dict[str, Any]) -> float:
    """Return the seconds that a run's warm-up took."""
    return sum(sum(series["warm_up_ns"]) for series in report["series"]) / 1e9


def show(name: str, report: dict[str, Any]) -> None:
    """Print what a run says of itself."""
    (series,) = report["series"]
    verdict = report["verdict"]
    stable = "stable" if verdict["stable"] else "unstable"
    print(f"  {name:9} p50 {series['p50_ms']:.4f} ms, n {series['iterations']}: {stable}")
    for finding in verdict["findings"]:
        print(f"    {'severe' if finding['severe'] else 'note'}: {finding['text']}")


def lean(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report without its starts, which are the samples' sums but for the clock."""
    series = [one | {"starts_ns": []} for one in report["series"]]
    return report | {"series": series}


def main() -> None:
    """Measure and print; the exit status is 1 where it does not know."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration-s", type=float, default=20.0)
    duration_s = parser.parse_args().duration_s
    results, right = {}, True
    for name, batch in BATCHES.items():
        print(name)
        plan = Plan(batches=(batch,), duration_s=duration_s)
        with tempfile.TemporaryDirectory() as folder:
            path = fused_file(Path(folder), name)
            quiet = [run(path, plan) for _ in range(2)]
            wait_s = warm_up_s(quiet[1]) + duration_s / 2
            busy = disturbed(path, plan, wait_s)
        for title, report in (("quiet", quiet[0]), ("quiet", quiet[1]), ("disturbed", busy)):
            show(title, report)
        samples = [np.array(r["series"][0]["samples_ns"], np.int64) for r in quiet]
        found = compare(*samples)
        low, high = found.interval
        print(f"  second / first {found.ratio:.4f} ({low:.4f}-{high:.4f})")
        checks = {
            "quiet runs are stable": all(r["verdict"]["stable"] for r in quiet),
            "quiet runs differ within their intervals": low <= 1 <= high,
            "the disturbed run is unstable": not busy["verdict"]["stable"],
        }
        for check, passed in checks.items():
            print(f"  {'yes' if passed else 'NO '}  {check}")
            right = right and passed
        results[name] = {
            "checks": checks,
            "ratio": found.ratio,
            "interval": found.interval,
            "p_value": found.p_value,
            "runs": [lean(report) for report in (*quiet, busy)],
        }
    write_result("bench_self_check", {"duration_s": duration_s, "results": results})
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
