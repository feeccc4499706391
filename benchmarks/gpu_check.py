# SPDX-License-Identifier: Apache-2.0
"""Check all that needs a GPU, with one command, on a machine without a network.

    python benchmarks/gpu_check_pack.py --out PACK       # where torch, onnx and a network are
    python benchmarks/gpu_check.py PACK --out RESULTS    # where the GPU is

Each check runs in a process of its own with a time limit; what it found is on the disk before
the next begins, so that a crash loses nothing. At the end each bench has its report and page.

Exit status 0: all that ran is as it should be, and some of it used the GPU. 1: something is
not. 3: no check could use a GPU, and each says why.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
for _folder in (_HERE, _HERE.parent, _HERE.parent / "runtime", _HERE.parent / "export"):
    if str(_folder) not in sys.path:  # nothing need be installed
        sys.path.insert(0, str(_folder))

from gpu_models import MANIFEST, install  # noqa: E402

__all__ = ["CHECKS", "NEEDS", "main", "run_check"]

NOTHING_RAN = 3

# What each needs, and seconds that it may take; in this order, since some use the engines of
# another. A build of an engine takes minutes on a small board.
CHECKS = {
    "machine": ("", 900),
    "cpu_provider": ("onnxruntime", 600),
    "bench_cpu": ("onnxruntime", 600),
    "tensorrt_compile": ("tensorrt", 3600),
    "tensorrt_parity": ("tensorrt", 600),
    "engine_reload": ("tensorrt", 300),
    "staleness": ("tensorrt", 300),
    "teachable_profile": ("tensorrt", 300),
    "batches": ("tensorrt", 300),
    "cuda_graph": ("tensorrt", 300),
    "threads": ("tensorrt", 900),
    "refit": ("tensorrt", 900),
    "bench_precisions": ("tensorrt", 1800),
    "cuda_provider": ("cuda", 600),
    "tensorrt_provider": ("cuda", 3600),
    "cuda_embedding": ("gpu", 600),
    "cuda_autocast": ("gpu", 600),
    "cuda_layouts": ("gpu", 600),
    "cuda_build": ("gpu", 1800),
    "cuda_kmeans": ("gpu", 600),
    "bench_ways": ("gpu", 900),
    "trtexec": ("tensorrt", 600),
}
NEEDS = {
    "onnxruntime": "ONNX Runtime",
    "tensorrt": "a GPU and TensorRT",
    "cuda": "a GPU and ONNX Runtime",
    "gpu": "a GPU",
}


def run_check(tell: Callable[..., None], argument: str) -> dict[str, Any]:
    """Run one check; this is what a child does.

    Args:
        tell: Told of the stage.
        argument: JSON: ``check``, ``packed``, ``out``, ``quick``, ``names``, ``standin``.

    Returns:
        ``status`` for `attempt`, ``outcome`` (passed, failed, skipped), ``reason``, ``found``.
    """
    given = json.loads(argument)
    from edge_imprint_runtime.errors import MissingPackageError
    from gpu_checks import CHECKS as RIGHT
    from gpu_checks import Failed, Job, Skipped
    from gpu_embedding import EMBEDDING
    from gpu_speed import SPEED

    job = Job(Path(given["packed"]), Path(given["out"]), given["quick"], tuple(given["names"]))
    check = (RIGHT | SPEED | EMBEDDING)[given["check"]]
    tell(given["check"])
    outcome, reason = "passed", ""
    with _world(given["standin"]):
        try:
            check(job)
        except Failed as error:
            outcome, reason = "failed", str(error)
        except (Skipped, MissingPackageError) as error:
            outcome, reason = "skipped", str(error)
        except Exception as error:
            outcome, reason = "failed", f"{type(error).__name__}: {error}"
            traceback.print_exc()
    result = {"status": "runs" if outcome == "passed" else "fails", "outcome": outcome}
    return result | {"reason": reason, "found": job.found}


def _world(standin: str) -> contextlib.AbstractContextManager[Any]:
    """Return the stand-in of TensorRT that tests use, where one is asked for."""
    if not standin:
        return contextlib.nullcontext()
    from tests.standins import tensorrt_standin

    return tensorrt_standin(standin)


def _lacks(standin: str) -> dict[str, str]:
    """Say for each need why it is not met here; "" where it is."""
    from edge_imprint_runtime.doctor.attempt import attempt
    from edge_imprint_runtime.doctor.libraries import find_libraries, folders

    libraries = find_libraries(folders())["cudart"]
    gpu = attempt("cuda", libraries[0]["path"] if libraries else "", limit_s=60)
    runtime = attempt("onnxruntime", limit_s=60)
    no_gpu = "" if gpu["status"] == "runs" else f"no GPU: {gpu['reason']}"
    no_runtime = "" if runtime["status"] == "runs" else f"no ONNX Runtime: {runtime['reason']}"
    listed = runtime.get("listed", [])
    no_cuda = no_gpu or no_runtime
    if not no_cuda and "CUDAExecutionProvider" not in listed:
        no_cuda = f"this ONNX Runtime was built for {', '.join(listed)}"
    return {
        "": "",
        "onnxruntime": no_runtime,
        "tensorrt": "" if standin else no_gpu,
        "cuda": no_cuda,
        "gpu": no_gpu,
    }


def _pages(out: Path) -> list[str]:
    """Make a page of each report, where this interpreter can."""
    from edge_imprint_runtime.files import write_atomic

    made: list[str] = []
    try:
        from edge_imprint.bench_page import render
        from edge_imprint_runtime.reporting.schema import read_report
    except ImportError as error:
        print(f"no pages are made here: {error}; 'edge-imprint report --html' makes them")
        return made
    for file in sorted((out / "reports").glob("*.json")):
        page = file.with_suffix(".html")
        write_atomic(page, render(read_report(file)).encode(), force=True)
        made.append(page.name)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packed", type=Path, help="what gpu_check_pack.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="a folder for results")
    parser.add_argument("--only", help="checks, separated by commas")
    parser.add_argument("--models", default="", help="names of models begin so, by commas")
    parser.add_argument("--quick", action="store_true", help="few runs; no limits on speed")
    parser.add_argument("--standin", default="", help="a TensorRT version of tests/standins")
    given = parser.parse_args(arguments)
    chosen = given.only.split(",") if given.only else list(CHECKS)
    if unknown := sorted(set(chosen) - set(CHECKS)):
        parser.error(f"there is no check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    names = [name for name in given.models.split(",") if name]
    packed = json.loads((given.packed / MANIFEST).read_text())["models"]
    for name in names:
        if not any(model.startswith(name) for model in packed):
            parser.error(f"no model begins with {name!r}; there are {', '.join(packed)}")
    given.out.mkdir(parents=True, exist_ok=True)
    # Behind what is installed, which fits this machine better.
    wheels = install(given.packed, given.out / "site")
    sys.path.append(str(given.out.absolute() / "site"))
    from edge_imprint_runtime.machine import machine_facts

    lacks = _lacks(given.standin)
    results: dict[str, Any] = {
        "created_unix_s": int(time.time()),
        "standin": given.standin or None,
        "machine": machine_facts(),
        "wheels": wheels,
        "checks": {},
    }
    settings = {
        "packed": str(given.packed.absolute()),
        "out": str(given.out.absolute()),
        "quick": given.quick,
        "names": names,
        "standin": given.standin,
    }
    for check in chosen:
        results["checks"][check] = _one(check, lacks, settings)
        _keep(given.out, results)
    results["pages"] = _pages(given.out)
    _keep(given.out, results)
    return _status(results["checks"])


def _one(check: str, lacks: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    from edge_imprint_runtime.doctor.attempt import attempt

    need, limit_s = CHECKS[check]
    if lacks[need]:
        found = {"outcome": "skipped", "reason": f"needs {NEEDS[need]}: {lacks[need]}"}
    else:
        argument = json.dumps(settings | {"check": check})
        found = attempt("gpu_check:run_check", argument, limit_s=limit_s)
        # A process that died, or was ended, has no outcome of its own.
        found.setdefault("outcome", "failed")
    found["used_gpu"] = need in ("tensorrt", "cuda", "gpu") and not settings["standin"]
    shown = f": {found['reason']}" if found.get("reason") else ""
    print(f"{found['outcome']:8} {check}{shown}", flush=True)
    return found


def _keep(out: Path, results: dict[str, Any]) -> None:
    from edge_imprint_runtime.files import write_atomic

    write_atomic(out / "gpu_check.json", json.dumps(results).encode(), force=True)


def _status(checks: dict[str, Any]) -> int:
    outcomes = [one["outcome"] for one in checks.values()]
    ran = [one for one in checks.values() if one["used_gpu"] and one["outcome"] != "skipped"]
    print(", ".join(f"{outcomes.count(kind)} {kind}" for kind in dict.fromkeys(outcomes)))
    if "failed" in outcomes:
        return 1
    if not ran:
        print("no check could use a GPU")
        return NOTHING_RAN
    return 0


if __name__ == "__main__":
    sys.exit(main())
