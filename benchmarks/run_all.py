# SPDX-License-Identifier: Apache-2.0
"""Run every benchmark but the training, one after another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "verify_fused",
    "targets",
    "precision",
    "large_heads",
    "ragged_heads",
    "frames",
    "teaching",
    "export_large",
    "command_time",
    "predict_overhead",
    "bench_vs_bare",
    "bench_self_check",
    "threads",
    "cold_start",
    "minimal_install",
    "c_runtime",
    "fused_latency",
    "build_speed",
    "embedding_cache",
    "build_memory",
    "streamed",
    "neighbours",
    "ort_vs_torch",
    "ray_nodes",
    "scale",
    "quality",
    "whitening",
    "keep_classes",
    "generation",
    "generation_memory",
    "aggregation",
)


def main() -> None:
    """Run them; stops at the first that fails."""
    for script in SCRIPTS:
        print(f"== {script}", flush=True)
        path = Path(__file__).with_name(f"{script}.py")
        more = ["--measure", "--docs"] if script == "scale" else []
        subprocess.run([sys.executable, str(path), *more], check=True)


if __name__ == "__main__":
    main()
