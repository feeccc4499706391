# SPDX-License-Identifier: Apache-2.0
"""From the start of a process to the label: `edge-imprint predict` against a bare script.

The script is ten lines of ONNX Runtime and Pillow on the same model and photo. Both run in
turns, with their bytecode written as after an installation. Limit: 1.5 times the script.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from common import fused_file, write_result

SCRIPT = """\
import sys
import numpy as np
import onnxruntime as ort
from PIL import Image

session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
_, height, width, _ = session.get_inputs()[0].shape
photo = Image.open(sys.argv[2]).convert("RGB").resize((width, height))
scores, label = session.run(["scores", "label"], {"images": np.asarray(photo)[np.newaxis]})
print(label[0], scores[0, label[0]])
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=41)
    given = parser.parse_args()
    command = str(Path(sys.executable).parent / "edge-imprint")
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script, photo = folder / "bare.py", folder / "photo.jpg"
        script.write_text(SCRIPT)
        pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        Image.fromarray(pixels).save(photo)
        # Where this interpreter was told to write no bytecode, all would be compiled anew.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        for backbone in ("demo", "timm/resnet18"):
            model = str(fused_file(folder, backbone))
            commands = {
                "bare script": [sys.executable, str(script), model, str(photo)],
                "edge-imprint predict": [command, "predict", model, str(photo)],
                "its imports": [sys.executable, "-c", "import numpy, onnxruntime, PIL.Image"],
            }
            taken: dict[str, list[float]] = {what: [] for what in commands}
            for turn in range(given.repeats + 1):
                for what, arguments in commands.items():
                    start = time.perf_counter()
                    subprocess.run(
                        arguments, check=True, stdout=subprocess.DEVNULL, env=environment
                    )
                    if turn:  # the first writes bytecode and finds cold files
                        taken[what].append(time.perf_counter() - start)
            p50 = {what: float(np.median(values)) for what, values in taken.items()}
            ratio = p50["edge-imprint predict"] / p50["bare script"]
            print(
                f"{backbone:14} bare script p50 {p50['bare script'] * 1e3:.0f} ms, "
                f"edge-imprint predict {p50['edge-imprint predict'] * 1e3:.0f} ms: "
                f"{ratio:.2f}x (limit 1.5); imports of the script alone "
                f"{p50['its imports'] * 1e3:.0f} ms"
            )
            results[backbone] = {"ratio": ratio, "p50_s": p50, "samples_s": taken}
    write_result("cold_start", {"results": results})


if __name__ == "__main__":
    main()
