# SPDX-License-Identifier: Apache-2.0
"""What `Model.predict` adds to a bare `InferenceSession.run`; limit at p50: 2 % + 50 us."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort

from common import fused_file, series_json, write_result
from edge_imprint_runtime import open_model
from edge_imprint_runtime.measuring import measure


def main() -> None:
    """Measure and print."""
    results = {}
    for name, iterations in (("demo", 5_000), ("timm/resnet18", 1_000)):
        with tempfile.TemporaryDirectory() as folder:
            path = fused_file(Path(folder), name)
            model = open_model(path, "cpu")
            bare = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        shape = (1, *model.input_shape)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        series = measure(
            {
                "InferenceSession.run": lambda bare=bare, images=images: bare.run(
                    ["scores", "label"], {"images": images}
                ),
                "Model.predict": lambda model=model, images=images: model.predict(images),
            },
            iterations=iterations,
        )
        base, whole = (s.percentile_ms(50) for s in series)
        added_us, allowed_us = (whole - base) * 1e3, base * 0.02 * 1e3 + 50
        print(
            f"{name:14} bare p50 {base:.4f} ms, predict {whole:.4f} ms: "
            f"adds {added_us:.1f} us (limit {allowed_us:.1f} us)"
        )
        results[name] = {
            "added_us": added_us,
            "allowed_us": allowed_us,
            "series": series_json(series),
        }
    write_result("predict_overhead", {"results": results})


if __name__ == "__main__":
    main()
