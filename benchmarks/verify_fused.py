# SPDX-License-Identifier: Apache-2.0
"""Fused model against the oracle: all 1,797 digits, and a head of 1,000 classes.

Limits: label agreement 100 % (ties aside), largest |score difference| 1e-4.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from common import random_head, write_result
from edge_imprint import ImprintClassifier, load_backbone
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint_export import fuse, save, verify
from edge_imprint_runtime import Head, open_model, prepare


def main() -> None:
    """Compare and print."""
    data = load_digits()
    backbone = load_backbone("demo")
    pixels = np.stack(
        [
            prepare(Image.fromarray(cells).convert("RGB"), backbone.info.preprocess)
            for cells in np.round(data.images * (255 / 16)).astype(np.uint8)
        ]
    )
    embeddings = ort_embedder(backbone)(pixels)
    fitted = ImprintClassifier().fit(embeddings, data.target).head_
    digits = Head(
        fitted.proxies, fitted.class_index, fitted.labels, fitted.rule, backbone=backbone.info
    )
    heads = {
        "10 digits, k-means 20": digits,
        "1,000 classes x 20": random_head(backbone, backbone.onnx, 1_000, 20),
    }
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, head) in enumerate(heads.items()):
            path = save(fuse(backbone.onnx, head), Path(folder) / f"{number}.onnx")
            found = verify(open_model(path, "cpu"), head, backbone.onnx, pixels).require()
            results[name] = asdict(found)
            print(
                f"{name}: {found.images} images, agreement {found.agreement:.2%}, "
                f"{found.ties} ties, max |score difference| {found.max_difference:.2g}"
            )
    write_result("verify_fused", {"results": results})


if __name__ == "__main__":
    main()
