# SPDX-License-Identifier: Apache-2.0
"""What the head and the uint8 input cost: resnet18, 224 px, batch 1, 10 classes x 20 proxies.

Three graphs in turns within one run: the backbone alone on ready float32 pixels, the fused
model on the same, the fused model on uint8 pixels. Limits at the median: 1.02 and 1.05.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort

from common import fused_file, series_json, write_result
from edge_imprint import load_backbone
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime.images import normalize
from edge_imprint_runtime.measuring import measure


def session(model: bytes | str) -> ort.InferenceSession:
    """Open a model with ONNX Runtime's defaults on the CPU."""
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=1_000)
    iterations = parser.parse_args().iterations
    backbone = load_backbone("timm/resnet18", random_weights=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1, 224, 224, 3), np.uint8)
    floats = normalize(pixels, backbone.info.preprocess)
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            form: str(fused_file(Path(folder), "timm/resnet18", input_form=form))
            for form in ("float32", "uint8")
        }
        alone = session(to_bytes(backbone.onnx))
        fused, whole = session(paths["float32"]), session(paths["uint8"])
    runs = {
        "backbone only, float32": lambda: alone.run(["embedding"], {"pixels": floats}),
        "fused, float32": lambda: fused.run(["scores", "label"], {"images": floats}),
        "fused, uint8": lambda: whole.run(["scores", "label"], {"images": pixels}),
    }
    series = measure(runs, iterations=iterations)
    p50 = [s.percentile_ms(50) for s in series]
    for s, value in zip(series, p50, strict=True):
        print(
            f"{s.name:24} p50 {value:.3f} ms   p99 {s.percentile_ms(99):.3f} ms   "
            f"ratio {value / p50[0]:.4f}"
        )
    ratios = {s.name: value / p50[0] for s, value in zip(series, p50, strict=True)}
    write_result("fused_latency", {"ratios_p50": ratios, "series": series_json(series)})


if __name__ == "__main__":
    main()
