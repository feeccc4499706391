# SPDX-License-Identifier: Apache-2.0
"""A bill of materials says what is in a model, the same each time, in CycloneDX's form."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from edge_imprint_export import fuse
from edge_imprint_export.files.sbom import bill_of_materials
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Preprocess

MakeHead = Callable[..., Head]

PROOF = "photos=200 held_out=yes agreement=0.9950 max_difference=0.0123"


@pytest.fixture(scope="module")
def model(tiny_backbone: bytes, make_head: MakeHead) -> onnx.ModelProto:
    model = fuse(tiny_backbone, make_head())
    helper.set_model_props(
        model,
        {p.key: p.value for p in model.metadata_props} | {"edge_imprint.note.proof": PROOF},
    )
    return model


def properties(part: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in part["properties"]}


def test_the_model_its_backbone_and_its_head_are_listed(
    model: onnx.ModelProto, make_head: MakeHead, tmp_path: Path
) -> None:
    head = make_head()
    bill = bill_of_materials(model, head, name="shop.onnx")
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    made = bill["metadata"]["component"]
    digest = hashlib.sha256(to_bytes(model)).hexdigest()
    assert made["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert (made["name"], made["type"]) == ("shop.onnx", "machine-learning-model")
    backbone, listed = bill["components"]
    assert head.backbone is not None
    assert backbone["name"] == "tiny"
    assert properties(backbone) == {
        "edge_imprint:backbone_digest": head.backbone.digest,
        "edge_imprint:backbone_weights": "packaged",
    }
    file = head.save(tmp_path / "h.imprint").read_bytes()
    assert listed["hashes"][0]["content"] == hashlib.sha256(file).hexdigest()
    assert properties(listed)["edge_imprint:recipe"] == "random"
    assert bill["dependencies"] == [
        {"ref": "model", "dependsOn": ["backbone", "head"]},
        {"ref": "backbone"},
        {"ref": "head"},
    ]


def test_the_card_says_what_goes_in_what_comes_out_and_how_it_was_proved(
    model: onnx.ModelProto, make_head: MakeHead
) -> None:
    card = bill_of_materials(model, make_head())["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["inputs"] == [{"format": "uint8 NHWC RGB"}]
    assert card["modelParameters"]["outputs"] == [{"format": "scores"}, {"format": "label"}]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type": "agreement", "value": "0.9950"} in metrics
    assert len(metrics) == 4


def test_tools_have_versions_and_licences(model: onnx.ModelProto, make_head: MakeHead) -> None:
    tools = bill_of_materials(model, make_head())["metadata"]["tools"]["components"]
    found = {tool["name"]: tool for tool in tools}
    assert found["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["onnx"]["version"] == metadata.version("onnx")
    assert found["onnx"]["purl"] == f"pkg:pypi/onnx@{metadata.version('onnx')}"
    assert found["edge-imprint"]["licenses"] == [{"expression": "Apache-2.0"}]
    assert all(tool.get("licenses") for name, tool in found.items() if name != "python")
    assert not {"torch", "timm"} & set(found)  # which had no part in it


def test_a_timm_backbone_names_torch_too(model: onnx.ModelProto, make_head: MakeHead) -> None:
    info = BackboneInfo("timm/resnet18", "pretrained", "0" * 64, Preprocess(16, 16))
    bill = bill_of_materials(model, make_head(backbone=info))
    names = {tool["name"] for tool in bill["metadata"]["tools"]["components"]}
    assert {"torch", "timm", "onnxscript"} <= names


def test_a_head_of_bare_embeddings_names_no_backbone(
    model: onnx.ModelProto, make_head: MakeHead
) -> None:
    bill = bill_of_materials(model, make_head(backbone=None))
    assert [part["bom-ref"] for part in bill["components"]] == ["head"]
    assert bill["dependencies"][0] == {"ref": "model", "dependsOn": ["head"]}


def test_equal_models_give_equal_bills_and_others_other_serial_numbers(
    model: onnx.ModelProto, make_head: MakeHead
) -> None:
    head = make_head()
    bill, again = bill_of_materials(model, head), bill_of_materials(model, head)
    assert json.dumps(bill) == json.dumps(again)
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        bill["serialNumber"],
    )
    assert "timestamp" not in bill["metadata"]
    other = bill_of_materials(model, make_head(seed=1))
    assert other["serialNumber"] != bill["serialNumber"]


def test_another_process_with_another_hash_seed_gives_the_same(
    tmp_path: Path, model: onnx.ModelProto, make_head: MakeHead
) -> None:
    (tmp_path / "m.onnx").write_bytes(to_bytes(model))
    make_head().save(tmp_path / "h.imprint")
    code = (
        "import json, sys, onnx\n"
        "from edge_imprint_export.files.sbom import bill_of_materials\n"
        "from edge_imprint_runtime import Head\n"
        "print(json.dumps(bill_of_materials(onnx.load(sys.argv[1]), Head.load(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", code, tmp_path / "m.onnx", tmp_path / "h.imprint"]
    texts = {
        subprocess.run(
            command, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
