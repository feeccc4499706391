# SPDX-License-Identifier: Apache-2.0
"""What real data and real machines do to `build` and `evaluate`: a report, or one line."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]

CLASSES = ("apple", "pear", "plum")
EACH = 20
STEPS = {
    "loading the backbone ...",
    "reading ...",
    "embedding ...",
    "imprinting ...",
    "looking for suspects ...",
    "holding out photos ...",
    "comparing ...",
}


def photo(path: Path, number: int, size: tuple[int, int] = (48, 40)) -> None:
    """Write a JPEG of its own: waves in a colour of its class."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[: size[1], : size[0]]
    waves = np.sin(x * rng.uniform(0.05, 0.5) + y * rng.uniform(0.05, 0.5))[..., np.newaxis]
    pixels = 120 + 60 * waves + 40 * np.eye(3)[number % 3] + rng.normal(0, 4, (*x.shape, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 60 photos. Don't change them."""
    root = tmp_path_factory.mktemp("fruit")
    for number in range(len(CLASSES) * EACH):
        label = CLASSES[number % len(CLASSES)]
        photo(root / label / f"{number:03}.jpg", number)
    return root


@pytest.fixture(scope="module")
def rows(data: Path) -> list[str]:
    """What a manifest says of them."""
    files = sorted(data.rglob("*.jpg"))
    return [f"{file.relative_to(data)},{file.parent.name}" for file in files]


@pytest.fixture
def build(run: Run, tmp_path: Path) -> Run:
    """Return ``build(DATA, *options, **environment)``, with the demo's backbone by default."""

    def build(data: object, *options: object, cache: Path | None = None, **own: Any) -> Done:
        given = list(map(str, options))
        if "--backbone" not in given:
            given += ["--backbone", "demo"]
        environment = dict(os.environ)
        if cache is not None:
            environment["XDG_CACHE_HOME"] = str(cache)
        return run("build", data, "--out", tmp_path / "head", *given, env=environment, **own)

    return build


def refused(done: Done, status: int, said: str, tmp_path: Path) -> None:
    """Hold one line, one status, and nothing written."""
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    *steps, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    assert said in last
    assert "unexpected" not in last
    assert set(steps) <= STEPS
    assert not (tmp_path / "head").exists()


def told(done: Done) -> list[str]:
    """Hold that it was built; return what was said beside the progress."""
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if line not in STEPS]


# Manifests ---------------------------------------------------------------------------------


def test_a_manifest_with_all_that_may_be_forgiven(
    build: Run, data: Path, rows: list[str], tmp_path: Path
) -> None:
    lines = [f"{row},{number}" for number, row in enumerate(rows)]
    lines += ["apple/lost.jpg,apple,1", "pear/gone.jpg,pear,2", lines[7]]
    text = "path,label,weight\n" + "\n".join(lines) + "\n"
    (data / "fruit.csv").write_text(text)
    done = build(data / "fruit.csv", "--json")
    said = "\n".join(told(done))
    for number, name in ((62, "lost.jpg"), (63, "gone.jpg")):
        assert f"line {number}" in said
        assert name in said
    assert "columns of " in said
    assert "'weight'" in said
    assert "once" in said
    made = json.loads(done.stdout)
    assert len(made["skipped"]) == 2
    assert made["images"] == len(rows)
    # The same photos in folders make the same proxies.
    head = (tmp_path / "head").read_bytes()
    told(build(data, "--force"))
    assert (tmp_path / "head").read_bytes()[-2048:] == head[-2048:]


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (b"path,label\na\xc4.jpg,apple\n", 1, "line 2: no UTF-8 (the byte 0xc4)"),
        ("path,label\na.jpg,apple\n".encode("utf-16"), 1, "is in UTF-16; save the manifest"),
        (b"file,class\na.jpg,apple\n", 1, "path"),
        (
            b"path,label\napple/000.jpg,apple\napple/000.jpg,pear\n",
            1,
            "'apple' in line 2 and 'pear'",
        ),
        (b"path,label\nlost.jpg,apple\n", 1, "none of the photos that "),
        (b"path,label\n", 1, "lists no photos"),
        (b"", 1, "m.csv"),
        (b"path,label\n../../x.jpg,apple\n", 1, "none of the photos that "),
        (b"path,label\na.jpg,apple,1\n", 1, "line 2: 3 fields"),
        (b"PK\x03\x04 and so on", 1, "is a zip file or a spreadsheet, not a manifest"),
    ],
)
def test_a_manifest_that_is_refused(
    build: Run, data: Path, tmp_path: Path, text: bytes, status: int, said: str
) -> None:
    (data / "m.csv").write_bytes(text)
    refused(build(data / "m.csv"), status, said, tmp_path)


def test_a_split_that_there_is_not(
    build: Run, data: Path, rows: list[str], tmp_path: Path
) -> None:
    lines = [f"{row},{'train' if n % 4 else 'test'}" for n, row in enumerate(rows)]
    (data / "split.csv").write_text("path,label,split\n" + "\n".join(lines))
    refused(build(data / "split.csv", "--split", "val"), 1, "of the split 'val'", tmp_path)
    done = build(data / "split.csv", "--split", "train", "--json")
    told(done)
    assert json.loads(done.stdout)["images"] == 45


# Shards ------------------------------------------------------------------------------------


def shard(path: Path, files: list[Path]) -> bytes:
    with tarfile.open(path, "w") as made:
        for number, file in enumerate(files):
            made.add(file, f"{number:05}.jpg")
            label = tarfile.TarInfo(f"{number:05}.cls")
            label.size = len(file.parent.name)
            made.addfile(label, io.BytesIO(file.parent.name.encode()))
    return path.read_bytes()


def test_a_shard_cut_short_is_used_as_far_as_it_goes(
    build: Run, data: Path, tmp_path: Path
) -> None:
    files = sorted(data.rglob("*.jpg"))
    shard(tmp_path / "s-000.tar", files[0::2])
    whole = shard(tmp_path / "s-001.tar", files[1::2])
    (tmp_path / "s-001.tar").write_bytes(whole[: len(whole) * 9 // 10])
    done = build(f"{tmp_path}/s-{{000..001}}.tar", "--json")
    (line,) = [line for line in told(done) if line.startswith("skipped: ")]
    assert "s-001.tar is cut short after " in line
    made = json.loads(done.stdout)
    assert len(made["skipped"]) == 1
    assert 45 < made["images"] < 60
    # What comes out of a shard is what the files say.
    (tmp_path / "s-001.tar").write_bytes(whole)
    assert json.loads(build(tmp_path, "--json", "--force").stdout)["images"] == 60


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.tar", b"no tar at all" * 100, "x.tar"),
        ("x.tar", b"", "x.tar"),
        ("x.tar.gz", b"\x1f\x8b\x08\0", "x.tar.gz"),
        ("x-{000..002}.tar", None, "x-"),
    ],
)
def test_what_is_no_shard(
    build: Run, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(build(tmp_path / name), 1, said, tmp_path)


# The cache ---------------------------------------------------------------------------------


def only_note(done: Done) -> str:
    notes = [line for line in told(done) if line.startswith("note: ")]
    (note,) = [line for line in notes if "the embedding cache " in line]
    assert note.endswith("stays in memory, and the next build embeds it again")
    return note


@pytest.fixture(scope="module")
def undisturbed(run: Run, data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The head that comes where nothing is wrong."""
    out = tmp_path_factory.mktemp("whole") / "head"
    told(run("build", data, "--backbone", "demo", "--out", out))
    return out.read_bytes()


@pytest.mark.parametrize("place", ["", "edge-imprint", "edge-imprint/embeddings"])
def test_a_file_where_the_cache_should_be(
    build: Run, data: Path, tmp_path: Path, undisturbed: bytes, place: str
) -> None:
    cache = tmp_path / "cache"
    (cache / place).parent.mkdir(parents=True, exist_ok=True)
    (cache / place).write_text("a file")
    assert "can't be read (not a directory)" in only_note(build(data, cache=cache))
    assert (cache / place).read_text() == "a file"
    assert (tmp_path / "head").read_bytes() == undisturbed


def test_a_cache_of_another_owner(
    build: Run, data: Path, tmp_path: Path, undisturbed: bytes
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o500)
    only_note(build(data, cache=cache))
    assert (tmp_path / "head").read_bytes() == undisturbed


def test_a_full_cache(build: Run, data: Path, tmp_path: Path, undisturbed: bytes) -> None:
    # A limit on the size of files stands for the disk: the head, 15 rows, is below it, and
    # the cache's shard, 60 rows, is not.
    limit = len(undisturbed) // 2
    done = build(
        data,
        "--proxies",
        5,
        cache=tmp_path / "cache",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert "can't be written (file too large)" in only_note(done)
    head = (tmp_path / "head").read_bytes()
    assert not list((tmp_path / "cache").rglob("*.shard"))
    told(build(data, "--proxies", 5, "--force"))
    assert (tmp_path / "head").read_bytes() == head


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_file_system(
    build: Run, data: Path, tmp_path: Path, undisturbed: bytes, small_disk: Path
) -> None:
    note = only_note(build(data, cache=small_disk))
    assert "can't be written (no space left on device)" in note
    assert (tmp_path / "head").read_bytes() == undisturbed


def test_a_cache_that_was_cleared(
    build: Run, run: Run, data: Path, tmp_path: Path, undisturbed: bytes
) -> None:
    cache = tmp_path / "cache"
    environment = dict(os.environ) | {"XDG_CACHE_HOME": str(cache)}
    for embedded in (60, 0, 60):
        done = build(data, "--force", "--json", cache=cache)
        told(done)
        assert json.loads(done.stdout)["embedded"] == embedded
        assert (tmp_path / "head").read_bytes() == undisturbed
        if embedded == 0:
            assert run("cache", "clear", env=environment).returncode == 0


# Machines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ("--engine ray --ray-address 127.0.0.1:1", 1, "cannot reach a Ray cluster at 127.0"),
        ("--engine ray --ray-address nonsense", 1, "is no address of a cluster"),
        ("--ray-address 127.0.0.1:1", 2, "--ray-address is for --engine ray"),
        ("--engine ray --workers 2", 2, "leave out --workers"),
        ("--engine spark", 2, "error: --engine must be one of local, ray, got 'spark'"),
        ("--device cpu --autocast bf16", 2, "--autocast bf16"),
        ("--autocast int8", 2, "error: --autocast must be one of bf16, fp16, got 'int8'"),
        ("--decode fast", 2, "error: --decode must be one of exact, quick, draft, got 'fast'"),
        ("--workers -1", 2, "error: --workers must be from 0 to 1024, got -1"),
        ("--split train", 1, "has no folder 'train' for that split"),
    ],
)
def test_options_that_cannot_be_met(
    build: Run, data: Path, tmp_path: Path, options: str, status: int, said: str
) -> None:
    refused(build(data, *options.split()), status, said, tmp_path)


@pytest.mark.parametrize("backbone", ["demo", "timm/test_resnet"])
def test_cuda_where_there_is_none(
    build: Run, data: Path, tmp_path: Path, backbone: str
) -> None:
    from edge_imprint.embedding.gpus import find_gpus

    if find_gpus().count:
        pytest.skip("this machine has a GPU")
    options = ("--device", "cuda", "--backbone", backbone)
    random = () if backbone == "demo" else ("--random-weights",)
    said = f"there is no CUDA device on this machine: {find_gpus().reason}; use --device cpu"
    refused(build(data, *options, *random), 1, said, tmp_path)


# Weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "what", "where"),
    [
        ("timm/resnet18", "get the file model.safetensors", "give it as --weights FILE"),
        ("torchvision/resnet18", "resnet18-f37072fd.pth", "give it as --weights FILE"),
    ],
)
def test_a_hub_that_cannot_be_reached(
    build: Run, data: Path, tmp_path: Path, backbone: str, what: str, where: str
) -> None:
    # Nothing listens at port 1 of this machine, and whoever asks is sent there.
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:1")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        for name, value in nowhere.items():
            patch.setenv(name, value)
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = build(data, "--backbone", backbone, cache=tmp_path / "cache")
        taken_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    refused(done, 1, f"cannot get the pretrained weights of {backbone}", tmp_path)
    assert what in done.stderr
    assert where in done.stderr
    # The client's own retries take half a minute for each file; a busy machine takes many
    # times what it computes.
    computed_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert taken_s < 20 + 10 * computed_s


def test_weights_of_another_backbone(build: Run, data: Path, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    module = timm.create_model("test_resnet", pretrained=False)
    file = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, file)
    options = ("--backbone", "timm/test_efficientnet", "--weights", file)
    refused(build(data, *options), 1, "don't fit timm/test_efficientnet", tmp_path)
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"no weights" * 100)
    options = ("--backbone", "timm/test_efficientnet", "--weights", garbage)
    refused(build(data, *options), 1, "garbage.safetensors", tmp_path)


# Processes that die ------------------------------------------------------------------------


def test_workers_that_are_killed(command: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    photo(tmp_path / "one.jpg", 0, (1920, 1440))
    pixels = np.asarray(Image.open(tmp_path / "one.jpg"))
    for number in range(200):  # large, so that a fast machine is at them for seconds, too
        folder = many / CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(pixels, 7 * number, axis=1)).save(folder / f"{number}.jpg")
    heads = []
    for turn in ("killed", "alone"):
        workers = "2" if turn == "killed" else "0"
        arguments = [command, "build", many, "--backbone", "demo", "--workers", workers]
        process = subprocess.Popen(
            [*map(str, arguments), "--out", str(tmp_path / turn), "--no-cache"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        killed = _kill_a_worker(process) if turn == "killed" else 1
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
        assert killed, "no worker was seen"
        assert "skipped" not in said
        heads.append((tmp_path / turn).read_bytes())
    assert heads[0] == heads[1]


def _kill_a_worker(process: subprocess.Popen[str]) -> int:
    """Kill the first worker once it is at work; returns its id, 0 where none came."""
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        for child in parent.children():
            try:
                if child.cpu_times().user > 0.3:  # past its imports
                    child.send_signal(signal.SIGKILL)
                    return int(child.pid)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.01)
    return 0
