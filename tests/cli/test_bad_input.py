# SPDX-License-Identifier: Apache-2.0
"""Every bad input: one line that says what to do, status 1 or 2, and no file changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_imprint.cli import main
from edge_imprint_runtime import Head

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def with_metadata(model: Path, out: Path, **changes: str) -> Path:
    changed = onnx.load(model)
    for entry in changed.metadata_props:
        key = entry.key.removeprefix("edge_imprint.")
        entry.value = changes.get(key, entry.value)
    onnx.save(changed, out)
    return out


def relu(out: Path) -> Path:
    make = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [make(name, onnx.TensorProto.FLOAT, ["N", 8]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), out)
    return out


@pytest.fixture(scope="module")
def bad(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the command lines below name; strings are put in by str.format."""
    root = tmp_path_factory.mktemp("bad")
    photo = workshop.photos / "red" / "0.png"
    for folder in ("empty", "one/class", "broken/a", "broken/b", "text/a", "out"):
        (root / folder).mkdir(parents=True)
    for label in ("single/a", "single/b", "named/a", "named/unknown"):
        (root / label).mkdir(parents=True)
        shutil.copy(photo, root / label)
    shutil.copy(photo, root / "one" / "class")
    for name in "ab":
        shutil.copy(photo, root / "broken" / name)
    (root / "broken" / "a" / "bad.png").write_bytes(photo.read_bytes()[:50])
    (root / "text" / "a" / "x.txt").touch()
    (root / "bad.csv").write_text("file,class\nx,y\n")
    (root / "garbage").write_text("neither a model nor a head")
    (root / "nothing").touch()
    (root / "old").write_text("old")
    head, good = Head.load(workshop.head), workshop
    other = Head(-head.proxies, head.class_index, head.labels, backbone=head.backbone)
    named = Head(head.proxies, head.class_index, ["x", "y", "z"], backbone=head.backbone)
    bare = Head(head.proxies, head.class_index, head.labels)
    return {
        "d": root,
        "photos": good.photos,
        "backbone": good.backbone,
        "head": good.head,
        "model": good.model,
        "photo": photo,
        "newer": with_metadata(good.model, root / "newer.onnx", version="99"),
        "fewer": with_metadata(good.model, root / "fewer.onnx", labels='["a","b"]'),
        "twice": with_metadata(good.model, root / "twice.onnx", labels='["a","b","a"]'),
        "foreign": relu(root / "foreign.onnx"),
        "other": other.save(root / "other.head"),
        "named": named.save(root / "named.head"),
        "bare": bare.save(root / "bare.head"),
        "long": "x" * 300,
        # One word of the command line each, whatever spaces it has.
        "votes": "l2 kmeans:auto l2 l2 mnn:3",
        "crowd": "l2 mean l2 l2 mnn:4",
        "typo": "l2 kmeans:x l2 l2 max",
        "endless": "l2 " * 2_000,
    }


BUILD = "build {photos} --backbone {backbone} --out {d}/out/head "
CASES = [
    # the data
    ("build {d}/gone --backbone demo --out {d}/out/h", 1, "there is no folder or file"),
    ("build {d}/empty --backbone demo --out {d}/out/h", 1, "holds no images"),
    ("build {d}/text --backbone demo --out {d}/out/h", 1, "holds no images"),
    ("build {d}/one --backbone demo --out {d}/out/h", 1, "holds one class only ('class')"),
    ("build {d}/broken --backbone demo --out {d}/out/h", 1, "1 of 3 photos are broken, more"),
    ("build {d}/bad.csv --backbone demo --out {d}/out/h", 1, "has no column path or label"),
    ("build {photo} --backbone demo --out {d}/out/h", 1, "is a photo, not a manifest"),
    ("build {long} --backbone demo --out {d}/out/h", 1, "there is no folder or file"),
    # the backbone
    (BUILD + "--backbone timm/resnet81", 2, "; nearest: timm/resnet18"),
    (
        BUILD + "--backbone resnet18",
        2,
        "use 'demo', 'timm/NAME', 'torchvision/NAME', 'onnx:FILE' or",
    ),
    (BUILD + "--backbone onnx:{d}/gone.onnx", 1, "No such file"),
    (BUILD + "--backbone onnx:{d}/garbage", 1, "is not an ONNX model"),
    (BUILD + "--backbone onnx:{foreign}", 1, "it must take float32 (N, 3, H, W)"),
    (BUILD + "--weights {d}/garbage", 2, "brings its own weights; leave out --weights"),
    (
        BUILD + "--backbone timm/test_resnet --weights {d}/garbage",
        1,
        "cannot read the weights",
    ),
    (BUILD + "--backbone timm/test_resnet --weights {d}/gone", 1, "there is no weights file"),
    (BUILD + "--weights x --random-weights", 2, "not both"),
    (BUILD + "--random-weights", 2, "brings its own weights; leave out --random-weights"),
    (BUILD + "--backbone onnx:", 2, "there is no backbone 'onnx:'; use 'demo'"),
    (BUILD + "--backbone timm/", 2, "there is no backbone 'timm/'; use 'demo'"),
    (BUILD + "--preprocess x", 1, "error: --preprocess must read 'resize="),
    # the options
    (BUILD + "--proxies 0", 2, "error: --proxies must be an integer >= 1 or 'auto', got 0"),
    (BUILD + "--proxies x", 2, "--proxies: must be a whole number or auto, got 'x'"),
    (BUILD + "--proxies -1", 2, "must be a whole number or auto, got '-1'"),
    (BUILD + "--proxies 9999999999", 2, "must be a whole number or auto, got '9999999999'"),
    (BUILD + "--proxies 3 --recipe qi2018", 2, "makes one proxy a class, whatever number"),
    (BUILD + "--proxies auto --recipe hosoda2024", 2, "'auto' chooses k for generation="),
    (BUILD + "--recipe best", 2, "a recipe is a preset (qi2018, hosoda2024, janson2022, "),
    (BUILD + "--recipe {typo}", 2, "the recipe's word 'kmeans:x' must have one whole number"),
    (BUILD + "--recipe {votes}", 2, "k can be chosen class by class under aggregation='max'"),
    (BUILD + "--recipe {crowd}", 2, "neighbors must be at most the 3 proxies of the head"),
    (BUILD + "--recipe {endless}", 2, "or five words such as 'l2 kmeans:20 l2 l2 max', got"),
    (BUILD + "--generation mean", 2, "No such option '--generation'"),
    (BUILD + "--shots 0", 2, "error: --shots must be None or an integer >= 1, got 0"),
    (BUILD + "--shots few", 2, "'few' is not a valid integer"),
    *(
        (
            BUILD + f"--calibrate --false-alarm {share}",
            2,
            f"error: --false-alarm must be a share above 0 and below 1, got {share}",
        )
        for share in ("0.0", "1.0", "2.0", "-0.1", "nan")
    ),
    (BUILD + "--false-alarm few", 2, "'few' is not a valid float"),
    (BUILD + "--keep-classes", 2, "brings no classes of its own; use a timm backbone, or"),
    (
        "build {photos} --backbone demo --out {d}/out/h --keep-classes",
        2,
        "the backbone demo brings no classes of its own",
    ),
    (
        "build {d}/single --backbone {backbone} --out {d}/out/h --calibrate",
        1,
        "no class has two different images, so that none can be held out; add images",
    ),
    (
        "build {d}/single --backbone {backbone} --out {d}/out/h --proxies auto",
        1,
        "k can be chosen only where a class has two different images to learn from, so",
    ),
    (
        "build {d}/named --backbone {backbone} --out {d}/out/h --calibrate",
        2,
        "a class is called 'unknown', which a calibrated model answers where it does not",
    ),
    (BUILD + "--device gpu", 2, "error: --device must be one of auto, cpu, cuda, got 'gpu'"),
    (BUILD + "--max-broken 2", 2, "error: --max-broken must be a share from 0 to 1"),
    (BUILD + "--seed -1", 2, "error: --seed must be an integer >= 0"),
    ("build {photos} --out {d}/out/h", 2, "Missing option '--backbone'"),
    # the output
    (
        BUILD + "--out {d}/old",
        1,
        "exists already; pass --force (in Python force=True) to replace it",
    ),
    (BUILD + "--out {d}/out", 1, "it is a folder; name a file in it"),
    (BUILD + "--out {d}/gone/head", 1, "there is no folder"),
    (BUILD + "--out {d}/old/head", 1, "cannot write"),
    (BUILD + "--out /proc/head", 1, "cannot write /proc/head"),
    (BUILD + "--out /dev/null --force", 1, "it is not a regular file"),
    (BUILD + "--out {d}/out/{long}", 1, "cannot write"),
    ("export {head} --out {d}/out", 1, "it is a folder; name a file in it"),
    ("export {head} --out /proc/model", 1, "cannot write /proc/model"),
    ("bench {model} --iterations 1 --out {d}/old", 1, "exists already"),
    # export, verify
    ("export {d}/gone --out {d}/out/m", 1, "there is no file"),
    ("export {d}/garbage --out {d}/out/m", 1, "is not a head file"),
    ("export {d}/out --out {d}/out/m", 1, "is not a head file (it is a folder)"),
    ("export {model} --out {d}/out/m", 1, "is not a head file"),
    ("export {bare} --out {d}/out/m", 1, "the head does not say which backbone"),
    ("export {head} --out {d}/out/m --input frame", 2, "--input frame needs --frame"),
    (
        "export {head} --out {d}/out/m --input float16",
        2,
        "error: --input must be 'uint8' or 'float32'",
    ),
    (
        "verify {model} --head {other} --images {photos}",
        1,
        "was made of another head, whose recipe",
    ),
    ("verify {model} --head {named} --images {photos}", 1, "labels are not the head's"),
    ("verify {model} --head {bare} --images {photos}", 1, "the head does not say which"),
    ("verify {model} --head {head} --images {d}/empty", 1, "holds no images"),
    ("verify {model} --head {head} --images {d}/gone/x", 1, "there is no photo"),
    # predict, inspect
    ("predict {d}/gone {photo}", 1, "there is no model file"),
    ("predict {long} {photo}", 1, "there is no model file"),
    ("predict {d}/garbage {photo}", 1, "is not an ONNX model"),
    ("predict {d}/nothing {photo}", 1, "is not an ONNX model"),
    ("predict {head} {photo}", 1, "is a head, not a model"),
    ("predict {foreign} {photo}", 1, "carries no edge-imprint metadata"),
    ("predict {newer} {photo}", 1, "version '99', this release reads version '1'"),
    ("predict {fewer} {photo}", 1, "2 labels, but the matrix has 3 classes"),
    ("predict {twice} {photo}", 1, "labels must be unique, but 'a' is there twice"),
    ("predict {model}", 2, "Missing argument 'PATH...'"),
    ("predict {model} {d}/empty", 1, "holds no images"),
    ("predict {model} {photo} --backend cuda", 1, "this ONNX Runtime has no CUDAExecution"),
    ("predict {model} {photo} --backend tensorrt", 1, "has no TensorrtExecutionProvider"),
    ("predict {model} {photo} --backend gpu", 2, "error: --backend must be one of"),
    ("predict {model} {photo} --threads -1", 2, "error: --threads must be an integer"),
    ("inspect {d}/gone", 1, "there is no model or head file"),
    ("inspect {d}/out", 1, "is a folder; name a model or head file"),
    ("inspect {d}/garbage", 1, "is not an ONNX model"),
    ("inspect {d}/nothing", 1, "is not an ONNX model"),
    ("inspect {foreign}", 1, "carries no edge-imprint metadata"),
    ("inspect {newer}", 1, "version '99'"),
    # bench
    ("bench {model} --batch 0", 2, "error: --batch must be integers from 1 to 4096"),
    (
        "bench {model} --batch 1,,2",
        2,
        "must be numbers from 1 to 4096 such as 1,8, got '1,,2'",
    ),
    ("bench {model} --batch -1", 2, "must be numbers from 1 to 4096 such as 1,8, got '-1'"),
    ("bench {model} --batch 9999", 2, "batch must be integers from 1 to 4096"),
    ("bench {model} --duration 0", 2, "error: --duration must be above 0 s"),
    ("bench {model} --duration 1h", 2, "must be seconds such as 30s, or minutes such as 2m"),
    ("bench {model} --duration -1s", 2, "must be seconds such as 30s"),
    ("bench {model} --duration 999999m", 2, "duration must be above 0 s and at most a day"),
    ("bench {model} --iterations 0", 2, "error: --iterations must be an integer"),
    ("bench {model} --iterations x", 2, "'x' is not a valid integer"),
    ("bench {model} --iterations 5 --duration 1s", 2, "give iterations or duration, not both"),
    ("bench {d}/gone", 1, "there is no model file"),
    ("bench {foreign}", 1, "carries no edge-imprint metadata"),
    # the command itself
    ("imprint {photos}", 2, "No such command 'imprint'"),
    ("--nope", 2, "No such option '--nope'"),
    ("predict {model} {photo} --jsn", 2, "No such option '--jsn'"),
]


STEPS = ("loading the backbone", "embedding", "choosing proxies", "imprinting", "reading")
STEPS += ("bringing it into the target's form", "comparing with float32")
LATER = (
    "looking for suspects",
    "choosing the shrinkage",
    "holding out photos",
    "comparing",
    "other ways to run it",
)
PROGRESS = {f"{step} ..." for step in (*STEPS, *LATER)}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(file): file.read_bytes() if file.is_file() else b"(folder)"
        for file in sorted(folder.rglob("*"))
    }


def filled(line: str, names: dict[str, object]) -> list[str]:
    return [part.format(**names) for part in line.split()]


@pytest.mark.parametrize(("line", "status", "said"), CASES)
def test_one_line_and_no_file_changed(
    line: str,
    status: int,
    said: str,
    bad: dict[str, object],
    capfd: pytest.CaptureFixture[str],
) -> None:
    # In this process, which has the libraries loaded already: 90 starts would take minutes.
    # That the command does the same is for the test below.
    root = Path(str(bad["d"]))
    before = snapshot(root)
    with pytest.raises(SystemExit) as stop:
        main(filled(line, bad))
    *steps, last = capfd.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert said.format(**bad) in last
    assert "unexpected" not in last
    assert set(steps) <= PROGRESS
    assert stop.value.code == status
    assert snapshot(root) == before


BY_THE_COMMAND = [
    "build {d}/one --backbone demo --out {d}/out/h",
    BUILD + "--proxies 0",
    BUILD + "--out {d}/out",
    "export {d}/garbage --out {d}/out/m",
    "verify {model} --head {named} --images {photos}",
    "predict {d}/garbage {photo}",
    "inspect {foreign}",
    "bench {model} --batch 0",
    "imprint {photos}",
]


@pytest.mark.parametrize("line", BY_THE_COMMAND)
def test_the_command_answers_the_same(line: str, run: Run, bad: dict[str, object]) -> None:
    (want,) = [case for case in CASES if case[0] == line]
    before = snapshot(Path(str(bad["d"])))
    done = run(*filled(line, bad))
    assert done.returncode == want[1]
    assert done.stdout == ""
    *steps, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    assert want[2].format(**bad) in last
    assert set(steps) <= PROGRESS
    assert snapshot(Path(str(bad["d"]))) == before


@pytest.mark.parametrize(
    ("package", "extra", "line"),
    [
        ("onnx", "demo", "export {head} --out {d}/out/m"),
        ("onnx", "demo", "verify {model} --head {head} --images {photos}"),
        ("onnxruntime", "cpu", "predict {model} {photo}"),
        ("onnxruntime", "cpu", "bench {model}"),
        ("threadpoolctl", "demo", "build {photos} --backbone demo --out {d}/out/h"),
        ("timm", "host", BUILD + "--backbone timm/resnet18"),
    ],
)
def test_without_a_package(
    package: str, extra: str, line: str, bad: dict[str, object]
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from edge_imprint.cli import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *filled(line, bad)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    said = done.stderr.splitlines()[-1]
    assert said.endswith(
        f" needs the package '{package}', which is not installed here; "
        f"run: pip install 'edge-imprint[{extra}]'"
    )
