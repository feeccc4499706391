# SPDX-License-Identifier: Apache-2.0
"""What `pip install edge-imprint[cpu]` brings to a device: bytes by package, import times."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from common import write_result

ROOT = Path(__file__).parents[1]
# What a Python statement of a device's program loads.
IMPORTS = {
    "python": "pass",
    "numpy": "import numpy",
    "edge_imprint_runtime": "import edge_imprint_runtime",
    "the command line": "import edge_imprint.cli",
    "edge_imprint_runtime and onnxruntime": "import edge_imprint_runtime, onnxruntime",
}

__all__ = ["installed_bytes", "make_environment"]


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what would bring in other packages."""
    without = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in without}


def make_environment(folder: Path, what: str = f"{ROOT}[cpu]") -> Path:
    """Install into a new virtual environment that holds nothing else.

    Args:
        folder: Where to make it.
        what: What pip installs.

    Returns:
        Its Python.

    Raises:
        CalledProcessError: pip failed; its words are in ``stderr``.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    options = ["--no-input", "--disable-pip-version-check", "--quiet", "--retries", "1"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", *options, what],
        check=True,
        capture_output=True,
        text=True,
        env=clean_environment(),
    )
    return python


def installed_bytes(python: Path) -> dict[str, int]:
    """Add up the files of an environment's site-packages, by top-level folder or file."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run(
        [python, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=clean_environment(),
    )
    site = Path(done.stdout.strip())
    found: Counter[str] = Counter()
    for file in site.rglob("*"):
        if file.is_file() and not file.is_symlink():
            found[file.relative_to(site).parts[0]] += file.stat().st_size
    return dict(found.most_common())


def import_seconds(python: Path, repeats: int) -> dict[str, list[float]]:
    """Time interpreters that import and end, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for turn in range(repeats + 1):
        for name, statement in IMPORTS.items():
            start = time.perf_counter()
            subprocess.run([python, "-c", statement], check=True, env=clean_environment())
            if turn:
                taken[name].append(time.perf_counter() - start)
    return taken


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        python = make_environment(Path(name) / "environment")
        install_s = time.perf_counter() - start
        sizes = installed_bytes(python)
        taken = import_seconds(python, 15)
    total = sum(sizes.values())
    print(f"installed in {install_s:.1f} s: {total / 1e6:.1f} MB with bytecode")
    for package, size in list(sizes.items())[:10]:
        print(f"  {package:24} {size / 1e6:8.2f} MB")
    ours = sum(size for name, size in sizes.items() if name.startswith("edge_imprint"))
    print(f"  {'(edge-imprint in all)':24} {ours / 1e6:8.2f} MB")
    for what, seconds in taken.items():
        print(f"{what:38} p50 {np.median(seconds) * 1e3:6.0f} ms")
    result: dict[str, Any] = {
        "install_s": install_s,
        "bytes": total,
        "bytes_by_package": sizes,
        "own_bytes": ours,
        "import_s": taken,
    }
    write_result("minimal_install", result)


if __name__ == "__main__":
    main()
