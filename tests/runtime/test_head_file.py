# SPDX-License-Identifier: Apache-2.0
"""The head file: what is saved is loaded, and a file that is none says so."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save as save_arrays

from edge_imprint_runtime import BackboneInfo, Head, Rule
from edge_imprint_runtime.contract import encode
from edge_imprint_runtime.errors import (
    ContractKeyError,
    ContractVersionError,
    EdgeImprintError,
    HeadFileError,
    HeadValueError,
    LabelCountError,
    NoContractError,
    OutputExistsError,
    OutputWriteError,
    ParameterError,
)

MakeHead = Callable[..., Head]
Arrays = dict[str, npt.NDArray[np.generic]]

ARRAYS: Arrays = {"proxies": np.eye(3, 4, dtype=np.float32), "class_index": np.arange(3)}
METADATA = encode(Head(ARRAYS["proxies"], ARRAYS["class_index"], list("abc")).contract)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
)


def put(path: Path, arrays: Arrays, metadata: dict[str, str] | None = METADATA) -> Path:
    """Write any safetensors file, valid head or not."""
    path.write_bytes(save_arrays(arrays, metadata=metadata))
    return path


def same(a: Head, b: Head) -> bool:
    """Tell whether two heads are equal, bit for bit."""
    names = ("proxies", "class_index", "center", "transform", "metric", "threshold")
    pairs = [(getattr(a, name), getattr(b, name)) for name in names]
    return a.contract == b.contract and all(
        x is y is None or np.array_equal(x, y) for x, y in pairs
    )


@st.composite
def heads(draw: st.DrawFn) -> Head:
    classes, dim, mapped = (draw(st.integers(1, 5)) for _ in range(3))
    index = [*range(classes), *draw(st.lists(st.integers(0, classes - 1), max_size=6))]
    transform = draw(st.booleans())

    def numbers(*shape: int) -> npt.NDArray[np.float32]:
        flat = draw(
            st.lists(FLOATS, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
        )
        return np.array(flat, np.float32).reshape(shape)

    size = mapped if transform else dim
    aggregation = draw(st.sampled_from(["max", "mnn"]))
    rule = Rule(
        draw(st.sampled_from(["none", "l2"])),
        aggregation,
        draw(st.sampled_from(["inner_product", "cosine", "mahalanobis"])),
        draw(st.integers(1, len(index))) if aggregation == "mnn" else 1,
    )
    calibrated = draw(st.booleans())
    return Head(
        numbers(len(index), size),
        draw(st.permutations(index)),
        draw(
            st.lists(
                NAMES.filter(lambda name: name != "unknown"),
                min_size=classes,
                max_size=classes,
                unique=True,
            )
        ),
        rule,
        center=numbers(dim) if draw(st.booleans()) else None,
        transform=numbers(dim, mapped) if transform else None,
        metric=numbers(size, 2) if rule.distance == "mahalanobis" else None,
        threshold=numbers(classes) if calibrated else None,
        temperature=draw(st.floats(1e-12, 1e12)) if calibrated else None,
        recipe=draw(NAMES),
    )


@given(heads())
def test_save_load_round_trip(head: Head) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert same(Head.load(head.save(Path(folder, "head"))), head)


def test_round_trip_with_a_backbone(
    make_head: MakeHead, tiny_info: BackboneInfo, tmp_path: Path
) -> None:
    head = make_head(4, 3, center=True, transform=True)
    loaded = Head.load(head.save(tmp_path / "head.safetensors"))
    assert same(loaded, head)
    assert loaded.backbone == tiny_info


def test_equal_heads_give_equal_bytes(make_head: MakeHead, tmp_path: Path) -> None:
    """Also in another process, where Python's and Rust's hashes have other seeds."""
    head = make_head(4, 3, center=True, transform=True)
    one = head.save(tmp_path / "1").read_bytes()
    code = (
        "import sys; from edge_imprint_runtime import Head\n"
        "Head.load(sys.argv[1]).save(sys.argv[2])"
    )
    for other in "23":
        arguments = [sys.executable, "-c", code, tmp_path / "1", tmp_path / other]
        subprocess.run(arguments, check=True)
        assert (tmp_path / other).read_bytes() == one


def test_arrays_begin_at_a_multiple_of_eight(make_head: MakeHead, tmp_path: Path) -> None:
    data = make_head().save(tmp_path / "head").read_bytes()
    assert int.from_bytes(data[:8], "little") % 8 == 0
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])


def test_save_keeps_what_is_there(make_head: MakeHead, tmp_path: Path) -> None:
    path = tmp_path / "head"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="pass --force"):
        make_head().save(path)
    assert path.read_text() == "mine"
    assert Head.load(make_head().save(path, force=True)).labels == make_head().labels
    with pytest.raises(OutputWriteError):
        make_head().save(tmp_path)


HEADER = json.dumps({"__metadata__": METADATA}).encode()
NO_HEAD_FILES = {
    "empty": b"",
    "text": b"this is not a head file, it is a sentence",
    "one byte": b"\0",
    "header length 2^63": (2**63).to_bytes(8, "little") + b"{}",
    "header length 2^64-1": b"\xff" * 8 + b"{}",
    "header length 100 MB": (10**8).to_bytes(8, "little") + b"{}",
    "header no JSON": (4).to_bytes(8, "little") + b"\xff\xfe\0\0",
    "no arrays": len(HEADER).to_bytes(8, "little") + HEADER,
    "pickle": b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("data", NO_HEAD_FILES.values(), ids=NO_HEAD_FILES.keys())
def test_a_file_that_is_no_head(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "head"
    path.write_bytes(data)
    with pytest.raises(HeadFileError, match=r"head is not a head file") as caught:
        Head.load(path)
    assert "\n" not in str(caught.value)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(HeadFileError, match="there is no file"):
        Head.load(tmp_path / "missing")
    for path in (tmp_path, tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(HeadFileError):
            Head.load(path)


@pytest.mark.parametrize("keep", [4, 8, 100, -1, -40])
def test_a_truncated_file(make_head: MakeHead, tmp_path: Path, keep: int) -> None:
    path = make_head().save(tmp_path / "head")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(HeadFileError, match="is not a head file"):
        Head.load(path)


@given(st.data())
def test_any_damage_is_refused_by_name(make_head: MakeHead, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = make_head(2, 1, 2, backbone=None).save(Path(folder, "head"))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
                st.integers(0, 255)
            )
        path.write_bytes(content)
        try:
            head = Head.load(path)
        except EdgeImprintError as error:
            assert str(error)
        else:
            assert np.isfinite(head.proxies).all()


BAD_ARRAYS: dict[str, tuple[Arrays, type[EdgeImprintError]]] = {
    "float64": (ARRAYS | {"proxies": np.eye(3, 4)}, HeadFileError),
    "float16": (ARRAYS | {"proxies": np.eye(3, 4, dtype=np.float16)}, HeadFileError),
    "int32": (ARRAYS | {"class_index": np.arange(3, dtype=np.int32)}, HeadFileError),
    "extra": (ARRAYS | {"extra": np.zeros(1, np.float32)}, HeadFileError),
    "no proxies": ({"class_index": np.arange(3)}, HeadFileError),
    "no index": ({"proxies": np.eye(3, 4, dtype=np.float32)}, HeadFileError),
    "NaN": (ARRAYS | {"proxies": np.full((3, 4), np.nan, np.float32)}, HeadValueError),
    "one dimension": (ARRAYS | {"proxies": np.zeros(3, np.float32)}, HeadValueError),
    "short index": (ARRAYS | {"class_index": np.arange(2)}, HeadValueError),
    "negative index": (ARRAYS | {"class_index": np.array([0, 1, -1])}, LabelCountError),
    "a class too many": (ARRAYS | {"class_index": np.array([0, 1, 3])}, LabelCountError),
    "a class without": (ARRAYS | {"class_index": np.array([0, 1, 1])}, LabelCountError),
    "center": (ARRAYS | {"center": np.zeros(3, np.float32)}, HeadValueError),
    "embedding size": (ARRAYS | {"proxies": np.eye(3, 5, dtype=np.float32)}, HeadValueError),
}


@pytest.mark.parametrize(("arrays", "error"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_bad_arrays_in_a_file(
    tmp_path: Path, arrays: Arrays, error: type[EdgeImprintError]
) -> None:
    path = put(tmp_path / "bad.head", arrays)
    with pytest.raises(error, match=r"bad\.head"):
        Head.load(path)


def test_rule_and_arrays_of_a_file(tmp_path: Path) -> None:
    """What the metadata ask for is in the arrays, and nothing else is."""
    path, rule = tmp_path / "h", METADATA["edge_imprint.rule"]
    votes = METADATA | {
        "edge_imprint.rule": rule.replace("max", "mnn").replace("neighbors=1", "neighbors=4")
    }
    with pytest.raises(ParameterError, match="h: neighbors must be at most the 3 proxies"):
        Head.load(put(path, ARRAYS, votes))
    distance = {"edge_imprint.rule": rule.replace("inner_product", "mahalanobis")}
    with pytest.raises(HeadValueError, match="h: distance='mahalanobis' needs metric"):
        Head.load(put(path, ARRAYS, METADATA | distance))
    metric = ARRAYS | {"metric": np.eye(4, dtype=np.float32)}
    assert Head.load(put(path, metric, METADATA | distance)).metric is not None
    with pytest.raises(HeadValueError, match="h: metric belongs to distance='mahalanobis'"):
        Head.load(put(path, metric))
    threshold = ARRAYS | {"threshold": np.zeros(3, np.float32)}
    temperature = METADATA | {"edge_imprint.temperature": "0.5"}
    for arrays, metadata in ((threshold, METADATA), (ARRAYS, temperature)):
        with pytest.raises(HeadValueError, match="h: threshold and temperature belong"):
            Head.load(put(path, arrays, metadata))
    assert Head.load(put(path, threshold, temperature)).temperature == 0.5


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2"])
def test_types_that_numpy_lacks(tmp_path: Path, dtype: str) -> None:
    size = 2 if dtype == "BF16" else 1
    array = {"dtype": dtype, "shape": [1, 1], "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": METADATA, "proxies": array}).encode()
    path = tmp_path / "head"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * size)
    with pytest.raises(HeadFileError):
        Head.load(path)


def test_metadata_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "h"
    assert Head.load(put(path, ARRAYS)).labels == ("a", "b", "c")
    with pytest.raises(NoContractError, match="carries no edge-imprint metadata"):
        Head.load(put(path, ARRAYS, None))
    with pytest.raises(ContractVersionError, match="version '2'"):
        Head.load(put(path, ARRAYS, METADATA | {"edge_imprint.version": "2"}))
    with pytest.raises(ContractKeyError, match="unknown key"):
        Head.load(put(path, ARRAYS, METADATA | {"edge_imprint.slots": "2"}))
    with pytest.raises(LabelCountError, match="4 labels"):
        Head.load(put(path, ARRAYS, METADATA | {"edge_imprint.labels": '["a","b","c","d"]'}))
    with pytest.raises(HeadValueError, match="embedding_size says 5, its arrays take 4"):
        Head.load(put(path, ARRAYS, METADATA | {"edge_imprint.embedding_size": "5"}))
