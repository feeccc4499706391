# SPDX-License-Identifier: Apache-2.0
"""Python's runtime answers as the conformance vectors say, which are what the script makes."""

from __future__ import annotations

import filecmp
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image
from safetensors.numpy import load

from edge_imprint_runtime import Head, Model, open_model
from edge_imprint_runtime.contract import decode
from edge_imprint_runtime.errors import EdgeImprintError, ModelFileError
from edge_imprint_runtime.images import normalize, prepare
from edge_imprint_runtime.knowledge import head_beside, knowing
from tests.conformance.make_vectors import main as make_vectors
from tests.conformance.manifest import MANIFEST, OK, VECTORS, sections, statuses_of

Fields = list[str]
CASES = dict(sections((VECTORS / MANIFEST).read_text().splitlines()))


class Conformer:
    """One section's lines, carried out one after the other; ``self.model`` is the open one."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder, scratch
        self.model: Model | None = None

    def run(self, fields: list[bytes]) -> None:
        """Carry out a line, and hold its outcome against the expected one."""
        command, *values = fields
        name = command.decode()
        if name == "contract":
            self.contract(*values)
        else:
            getattr(self, name)(*(value.decode("utf-8") for value in values))

    def open_model(self) -> Model:
        assert self.model is not None
        return self.model

    def outcome(self, status: str, call: Any) -> None:
        """Call, and compare its error with a status."""
        try:
            call()
        except EdgeImprintError as error:
            assert status in statuses_of(error), error
        else:
            assert status == OK

    def open(self, file: str, head: str, status: str) -> None:
        self.model = None

        def call() -> None:
            path = self.folder / file
            if head == "beside":
                self.model = open_model(path, "cpu")
                return
            alone = self.scratch / file
            alone.write_bytes(path.read_bytes())
            if head != "none":
                head_beside(alone).write_bytes((self.folder / head).read_bytes())
            self.model = open_model(alone, "cpu")

        if status == "EI_FILE_MISSING":
            with pytest.raises(ModelFileError, match="there is no model file"):
                call()
        else:
            self.outcome(status, call)

    def describe(self, key: str, value: str) -> None:
        model = self.open_model()
        contract = model.contract
        facts = {
            "embedding_size": contract.embedding_size,
            "calibrated": int(contract.temperature is not None),
            "recipe": contract.recipe,
            "provider": model.provider,
        }
        if key in facts:
            assert str(facts[key]) == value

    def classes(self, *labels: str) -> None:
        assert self.open_model().labels == labels

    def images(self, file: str, kind: str, width: str, height: str, count: str) -> Any:
        """What Python is given for it: its own form of the same images."""
        data = np.fromfile(self.folder / file, np.uint8)
        sides = (int(height), int(width))
        contract = self.open_model().contract
        assert contract.graph is not None
        if kind == "float32" and contract.graph.input == "embedding":
            return data.view(np.float32)[: int(count) * sides[1]].reshape(-1, sides[1])
        if kind == "float32":
            return data.view(np.float32).reshape(-1, 3, *sides)[: int(count)]
        if kind == "nv12":
            return data.reshape(-1, sides[0] * 3 // 2, sides[1])[: int(count)]
        if kind == "yuyv":
            return data.reshape(-1, *sides, 2)[: int(count)]
        frame = contract.graph.frame
        wanted = f"{frame.format}8" if frame else "rgb8"
        pixels = data[: len(data) // 3 * 3]
        row = sides[0] * sides[1] * 3
        pixels = pixels[: len(pixels) // row * row].reshape(-1, *sides, 3)[: int(count)]
        pixels = pixels if kind == wanted else np.ascontiguousarray(pixels[..., ::-1])
        if contract.graph.input == "float32":
            assert contract.backbone is not None
            return normalize(pixels, contract.backbone.preprocess)
        return pixels

    def predict(self, *fields: str) -> None:
        *images, file, parts, tolerance = fields
        found = self.open_model().predict(self.images(*images))
        data = (self.folder / file).read_bytes()
        for part in parts.split(","):
            values = np.asarray(getattr(found, part))
            kind = np.dtype(np.float32 if values.ndim == 2 else np.int32)
            expected = np.frombuffer(data, kind, values.size).reshape(values.shape)
            data = data[values.size * 4 :]
            assert near(values, expected, float(tolerance) if values.ndim == 2 else 0)
        assert not data

    def refuse(self, *fields: str) -> None:
        *images, status = fields
        model = self.open_model()
        self.outcome(status, lambda: check_refused(model, self.images(*images)))

    def embed(self, *fields: str) -> None:
        images, file, tolerance, *status = *[fields[:5]], fields[5], fields[6], *fields[7:]
        model = self.open_model()
        if status:
            self.outcome(status[0], lambda: model.embed(self.images(*images)))
            return
        found = model.embed(self.images(*images))
        expected = np.fromfile(self.folder / file, np.float32).reshape(found.shape)
        assert near(found, expected, float(tolerance))

    def prepare(self, file: str, width: str, height: str, expected: str) -> None:
        backbone = self.open_model().contract.backbone
        assert backbone is not None
        photo = np.fromfile(self.folder / file, np.uint8).reshape(int(height), int(width), 3)
        made = np.asarray(prepare(Image.fromarray(photo), backbone.preprocess))
        assert made.tobytes() == (self.folder / expected).read_bytes()

    def teach(self, label: str, file: str, count: str, proxies: str, status: str) -> None:
        model = self.open_model()
        rows = np.fromfile(self.folder / file, np.float32)
        rows = rows.reshape(-1, model.contract.embedding_size)[: int(count)]
        most = int(proxies) or None
        self.outcome(status, lambda: model.teach_embeddings(label, rows, proxies=most))

    def forget(self, label: str, status: str) -> None:
        self.outcome(status, lambda: self.open_model().forget(label))

    def load(self, file: str, status: str) -> None:
        """Python has no such call: a head is read, checked and laid out as at opening."""
        model = self.open_model()

        def call() -> None:
            path = self.folder / file
            model._known = knowing(Head.load(path), model.contract, model.runner, path)

        self.outcome(status, call)

    def saved(self, file: str, tolerance: str) -> None:
        data = self.open_model().save_head(self.scratch / "saved.head").read_bytes()
        expected = (self.folder / file).read_bytes()
        if float(tolerance) == 0:
            assert data == expected
            return
        found, wanted = load(data), load(expected)
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            assert near(found[name], array, float(tolerance) if array.dtype.kind == "f" else 0)

    def head(self, file: str, status: str, stricter: str = "") -> None:
        """A head file on its own; ``stricter``: C refuses it, the safetensors library not."""

        def call() -> None:
            data = (self.folder / file).read_bytes()
            assert Head.load(self.folder / file).to_bytes() == data

        if stricter:
            assert Head.load(self.folder / file).labels
        else:
            self.outcome(status, call)

    def contract(
        self, file: bytes, of: bytes, key: bytes, value: bytes, status: bytes
    ) -> None:
        parts = (self.folder / file.decode()).read_bytes().split(b"\0")[:-1]
        pairs = dict(zip(parts[::2], parts[1::2], strict=True))
        if key.startswith(b"-"):
            del pairs[key[1:]]
        elif key:
            pairs[key] = value
        text = {k.decode(): v.decode("utf-8", "surrogatepass") for k, v in pairs.items()}
        self.outcome(status.decode(), lambda: decode(text, model=of == b"model"))


def near(found: npt.NDArray[Any], expected: npt.NDArray[Any], tolerance: float) -> bool:
    """Whether numbers are those expected, relative to them where they are above one."""
    off = np.abs(found.astype(np.float64) - expected)
    return found.shape == expected.shape and bool(
        (off <= tolerance * np.maximum(1, np.abs(expected))).all()
    )


def check_refused(model: Model, images: npt.NDArray[np.generic]) -> None:
    """Predict; C looks for NaN in what goes in, Python in what comes out."""
    model.predict(images)


@pytest.mark.parametrize("name", CASES)
def test_python_conforms(name: str, tmp_path: Path) -> None:
    conformer = Conformer(VECTORS, tmp_path)
    assert CASES[name]
    for fields in CASES[name]:
        conformer.run(fields)


def test_the_vectors_are_those_that_the_script_makes(tmp_path: Path) -> None:
    """Bytes are equal but where another release of a library rounds or lays out otherwise."""
    make_vectors(tmp_path / "made")
    names = {path.relative_to(VECTORS) for path in VECTORS.rglob("*") if path.is_file()}
    made = {
        p.relative_to(tmp_path / "made") for p in (tmp_path / "made").rglob("*") if p.is_file()
    }
    assert made == names
    for name in sorted(names):
        ours, theirs = VECTORS / name, tmp_path / "made" / name
        if filecmp.cmp(ours, theirs, shallow=False):
            continue
        assert name.suffix in (".onnx", ".answers", ".embeddings", ".head"), name
        if name.suffix == ".onnx":
            graphs = [onnx.load(path).graph for path in (ours, theirs)]
            kinds = [[node.op_type for node in graph.node] for graph in graphs]
            assert kinds[0] == kinds[1]
    assert sum(path.stat().st_size for path in VECTORS.rglob("*")) <= 800_000
