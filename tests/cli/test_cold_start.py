# SPDX-License-Identifier: Apache-2.0
"""What `predict` loads: a process that answers one photo must not wait for anything else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# What has a place in the house, takes milliseconds to load, and has no part in one answer.
IDLE = (
    "cpuinfo",
    "csv",
    "difflib",
    "edge_imprint.builder",
    "edge_imprint_export",
    "edge_imprint_runtime.backends.cuda",
    "edge_imprint_runtime.backends.trt",
    "edge_imprint_runtime.doctor",
    "edge_imprint_runtime.engine.build",
    "edge_imprint_runtime.engine.onnx_facts",
    "edge_imprint_runtime.machine",
    "edge_imprint_runtime.measuring",
    "edge_imprint_runtime.reporting",
    "edge_imprint_runtime.sensors",
    "hashlib",
    "importlib.metadata",
    "psutil",
    "rich",
    "safetensors",
    "secrets",
    "subprocess",
    "tempfile",
)


def loaded_by(*arguments: str) -> set[str]:
    """Run the command; give the names of all modules that it has loaded."""
    code = (
        "import json, sys\n"
        "from edge_imprint.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def loaded_by_script(model: Path, photo: Path) -> set[str]:
    """Do the same by ONNX Runtime and Pillow alone; give what that has loaded."""
    code = (
        "import json, sys\n"
        "import numpy as np, onnxruntime as ort\n"
        "from PIL import Image\n"
        "session = ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "photo = Image.open(sys.argv[2]).convert('RGB').resize((16, 16))\n"
        "session.run(['label'], {'images': np.asarray(photo)[np.newaxis]})\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, model, photo], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("as_json", [False, True])
def test_a_prediction_loads_what_it_needs(
    tiny_model: Path, tmp_path: Path, as_json: bool
) -> None:
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(photo)
    options = ["--json"] if as_json else []
    loaded = loaded_by("predict", str(tiny_model), str(photo), *options)
    assert "onnxruntime" in loaded
    # Other releases of ONNX Runtime, Pillow or numpy may load more of this.
    idle = set(IDLE) - loaded_by_script(tiny_model, photo)
    assert loaded & idle == set()
