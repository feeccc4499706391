# SPDX-License-Identifier: Apache-2.0
"""Contracts, heads and models that are refused, of the Python runtime's own tables of such."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import onnx
from safetensors.numpy import save

from edge_imprint_runtime.contract.codec import PREFIX
from tests.conformance.manifest import OK, STATUS
from tests.runtime import test_contract_values as values
from tests.runtime import test_head_file as heads
from tests.runtime import test_onnx_scan as scans

Say = Callable[..., None]
Put = Callable[[str, bytes], str]

MAX_VALUE, MAX_FILE_BYTES = 600, 4_000
HEAD = {key: heads.METADATA[key] for key in sorted(heads.METADATA)}


def bad_contracts(say: Say, put: Put) -> None:
    """One value changed, or one key more or less, each time."""
    base = put("model.contract", _pairs(values.MODEL))
    head = put("head.contract", _pairs(HEAD))
    say("section", "contracts")
    say("contract", base, "model", "", "", OK)
    say("contract", head, "head", "", "", OK)
    say("contract", base, "head", "", "", "EI_CONTRACT_KEY")
    say("contract", head, "model", "", "", "EI_CONTRACT_KEY")
    for key, found in values.MALFORMED.items():
        for value in found:
            if len(value) <= MAX_VALUE:
                say("contract", base, "model", PREFIX + key, value, "EI_CONTRACT_VALUE")
    for key in values.MODEL:
        name = key.removeprefix(PREFIX)
        lacking = "EI_CONTRACT_VERSION" if name == "version" else "EI_CONTRACT_KEY"
        status = OK if name in ("temperature", "teachable") else lacking
        say("contract", base, "model", "-" + key, "", status)
    for version in ("", "0", "2", "01", "1 ", "+1", "1.0"):
        say("contract", base, "model", PREFIX + "version", version, "EI_CONTRACT_VERSION")
    for key in ("novelty", "Version", "labels ", "note", ""):
        say("contract", base, "model", PREFIX + key, "1", "EI_CONTRACT_KEY")
    for key in (PREFIX + "note.by", "other", "edge_imprint"):
        say("contract", base, "model", key, "1", OK)
    good = {
        "temperature": ("0.25", "1", "1e-07", "1e+10", "0.1234567890123456"),
        "target": ("jetpack-6.2",),
        "teachable": ("input 10 1", "default 65536 1048576"),
        "labels": ('["a"]', ' [ "\\u00e9" , "\\ud83d\\ude00" ] ', '["\\"\\\\\\/\\n\\t"]'),
        "input": ("float32 NCHW RGB", "frame bgr any", "frame nv12 720x1280 bt709 full"),
        "precision": ("fp16", "int8"),
    }
    for key, found in good.items():
        for value in found:
            say("contract", base, "model", PREFIX + key, value, OK)
    say("contract", base, "model", PREFIX + "labels", '["unknown"]', "EI_CONTRACT_VALUE")


def bad_heads(say: Say, put: Put) -> None:
    """Files that are no heads, arrays that contradict each other, hostile headers."""
    say("section", "heads")
    for name, data in {**heads.NO_HEAD_FILES, **_hostile()}.items():
        # The safetensors library lets the last of two equal keys win.
        stricter = ["stricter"] if name == "the same twice" else []
        say("head", put(f"heads/{_plain(name)}", data), "EI_HEAD_FILE", *stricter)
    for name, (arrays, error) in heads.BAD_ARRAYS.items():
        data = _file(save(arrays, metadata=HEAD))
        say("head", put(f"heads/bad-{_plain(name)}", data), STATUS[error])
    for name, metadata, status in (
        ("no contract", None, "EI_NO_CONTRACT"),
        ("version", {"version": "2"}, "EI_CONTRACT_VERSION"),
        ("key", {"slots": "2"}, "EI_CONTRACT_KEY"),
        ("labels", {"labels": '["a","b","c","d"]'}, "EI_LABEL_COUNT"),
        ("size", {"embedding_size": "5"}, "EI_HEAD_VALUE"),
        ("temperature", {"temperature": "0.5"}, "EI_HEAD_VALUE"),
    ):
        changes = {PREFIX + key: value for key, value in (metadata or {}).items()}
        whole = None if metadata is None else HEAD | changes
        data = _file(save(heads.ARRAYS, metadata=whole))
        say("head", put(f"heads/metadata-{_plain(name)}", data), status)


def _hostile() -> dict[str, bytes]:
    """Headers that a careless reader trips over."""
    proxies = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}
    index = {"dtype": "I64", "shape": [3], "data_offsets": [48, 72]}
    good = {"__metadata__": HEAD, "proxies": proxies, "class_index": index}
    text = json.dumps(good)
    numbers = bytes(48) + heads.ARRAYS["class_index"].tobytes()

    def array(**changes: object) -> str:
        return json.dumps(good | {"class_index": index | changes})

    return {
        "overlapping": _with(array(data_offsets=[47, 71]), numbers),
        "a hole": _with(array(data_offsets=[56, 80]), numbers + bytes(8)),
        "outside": _with(array(data_offsets=[48, 2**63]), numbers),
        "backwards": _with(array(data_offsets=[72, 48]), numbers),
        "a shape that is more": _with(array(shape=[4]), numbers),
        "an astronomic shape": _with(array(shape=[2**62, 2**62]), numbers),
        "bytes behind": _with(text, numbers + b"\0"),
        "a byte too few": _with(text, numbers[:-1]),
        "the same twice": _with(
            text[:-1] + ', "proxies": ' + json.dumps(proxies) + "}", numbers
        ),
        "deep": _with('{"a":' * 200 + "1" + "}" * 200, numbers),
        "a negative number": _with(array(shape=[-3]), numbers),
        "a fraction": _with(array(shape=[3.5]), numbers),
        "text behind the header": _with(text + "x", numbers),
        "an array for metadata": _with(json.dumps(good | {"__metadata__": []}), numbers),
        "numbers for metadata": _with(json.dumps(good | {"__metadata__": {"a": 1}}), numbers),
    }


def bad_models(say: Say, put: Put) -> None:
    """Files that are no models, that claim what they don't hold, that are not ours."""
    say("section", "models")
    say("open", "nowhere.onnx", "beside", "EI_FILE_MISSING")
    for name, (data, _) in scans.NO_MODEL.items():
        say("open", put(f"models/{_plain(name)}.onnx", data), "beside", "EI_MODEL_FILE")
    for name, (change, _) in scans.UNSAFE.items():
        if name in ("long", "parts without end") or "million" in name:
            continue
        model = scans.small_model()
        changed = change(model)
        data = changed if isinstance(changed, bytes) else model.SerializeToString()
        assert len(data) <= MAX_FILE_BYTES
        say("open", put(f"models/{_plain(name)}.onnx", data), "beside", "EI_UNSAFE_MODEL")
    for name, metadata, status in (
        ("not ours", {"producer": "torch"}, "EI_NO_CONTRACT"),
        ("a note alone", {PREFIX + "note.by": "me"}, "EI_NO_CONTRACT"),
        ("newer", values.MODEL | {PREFIX + "version": "2"}, "EI_CONTRACT_VERSION"),
        ("a key more", values.MODEL | {PREFIX + "novelty": "1"}, "EI_CONTRACT_KEY"),
        ("a bad rule", values.MODEL | {PREFIX + "rule": "max"}, "EI_CONTRACT_VALUE"),
        ("another graph", values.MODEL, "EI_MODEL_FILE"),
    ):
        model = scans.small_model()
        onnx.helper.set_model_props(model, metadata)
        path = put(f"models/{_plain(name)}.onnx", model.SerializeToString())
        say("open", path, "beside", status)


def _pairs(metadata: Mapping[str, str]) -> bytes:
    return "".join(f"{key}\0{value}\0" for key, value in metadata.items()).encode()


def _with(header: str, numbers: bytes) -> bytes:
    text = header.encode()
    return len(text).to_bytes(8, "little") + text + numbers


def _file(data: bytes) -> bytes:
    """Sort a file's metadata, which safetensors writes in any order."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    return _with(json.dumps(header, separators=(",", ":")), data[8 + size :])


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
