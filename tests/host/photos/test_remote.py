# SPDX-License-Identifier: Apache-2.0
"""Photos in object stores: fsspec's own, and a real S3 server on this machine."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from edge_imprint.photos import Member, Photos, Remote, find_photos
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.errors import (
    ManifestError,
    MissingPackageError,
    NoImagesError,
    RemoteError,
    ShardError,
    UnreadableImageError,
)
from edge_imprint_runtime.images import photo_pixels
from tests.host.photos.s3_server import deaf_port, serve_s3, variables
from tests.host.photos.shard_maker import write_shard

PREPROCESS = Preprocess(8, 8)


def fill(root: Path) -> Path:
    """Write class folders, manifests and shards, as any folder has them."""
    rng = np.random.default_rng(0)
    photos = {}
    for name in ("photos/pear/1.png", "photos/pear/deep/2.png", "photos/apple/0.png"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(file)
        photos[name] = file.read_bytes()
    for name in ("photos/readme.txt", "photos/apple/notes.txt", "photos/loose.png"):
        (root / name).write_bytes(b"x")
    (root / "list.csv").write_text(
        "path,label,split\nphotos/pear/1.png,b,x\nphotos/apple/0.png,a,x\n"
    )
    paths = ["photos/pear/1.png", "./photos/apple/0.png"]
    pq.write_table(pa.table({"path": paths, "label": ["b", "a"]}), root / "list.parquet")
    for i in range(2):
        files = {f"{i}.png": photos["photos/pear/1.png"], f"{i}.cls": b"%d" % i}
        write_shard(root / "shards" / f"s-{i}.tar", files)
    (root / "shards" / "classes.txt").write_text("apple\npear\n")
    return root


def copy(home: Path, store: fsspec.AbstractFileSystem, place: str) -> None:
    for file in home.rglob("*"):
        if file.is_file():
            store.pipe_file(f"{place}/{file.relative_to(home)}", file.read_bytes())


def listed(photos: Photos) -> list[tuple[str, str]]:
    index = photos.class_index.tolist()
    return [(str(path), photos.labels[c]) for path, c in zip(photos.paths, index, strict=True)]


# What every store does -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket on a real S3 server, and this process set up to reach it."""
    pytest.importorskip("s3fs", reason="needs s3fs, the client for s3://")
    pytest.importorskip("moto", reason="needs moto[server], an S3 server for tests")
    log = tmp_path_factory.mktemp("s3") / "log"
    with serve_s3(log) as port, pytest.MonkeyPatch.context() as patch:
        for name, value in variables(port).items():
            patch.setenv(name, value)
        try:
            store = fsspec.filesystem("s3")
            store.mkdir("fruit")
            copy(fill(tmp_path_factory.mktemp("to_s3")), store, "fruit")
            yield "s3://fruit"
        finally:
            fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a place that `fill` has filled."""
    if request.param == "s3":
        return str(request.getfixturevalue("s3"))
    home = fill(tmp_path / "home")
    if request.param == "file":
        return f"file://{home}"
    memory = fsspec.filesystem("memory")
    if memory.exists("/home"):
        memory.rm("/home", recursive=True)
    copy(home, memory, "/home")
    return "memory:///home"


def test_class_folders(store: str) -> None:
    found = find_photos(f"{store}/photos/")
    assert listed(found) == [
        (f"{store}/photos/apple/0.png", "apple"),
        (f"{store}/photos/pear/1.png", "pear"),
        (f"{store}/photos/pear/deep/2.png", "pear"),
    ]
    assert found.ignored_files == 2
    assert found.notes == ("1 images lie outside the class folders and were left out",)
    for path in found.paths:
        assert isinstance(path, Remote)
        assert path.size == len(path.read_bytes())
        assert path.stamp
        again: Remote = pickle.loads(pickle.dumps(path))
        assert photo_pixels(again, PREPROCESS).shape == (8, 8, 3)
    assert found.class_index.tolist() == [0, 1, 1]


def test_an_object_that_changes_has_another_stamp(store: str) -> None:
    url = f"{store}/photos/pear/1.png"
    before = find_photos(f"{store}/photos").paths[1]
    fs, path = fsspec.core.url_to_fs(url)
    data = fs.cat_file(path)
    try:
        time.sleep(0.02)  # a store's clock may count in hundredths
        fs.pipe_file(path, data[:-1] + b"?")
        after = find_photos(f"{store}/photos").paths[1]
        assert isinstance(before, Remote)
        assert isinstance(after, Remote)
        assert (after.url, after.size) == (before.url, before.size)
        assert after.stamp != before.stamp
    finally:
        fs.pipe_file(path, data)


def test_a_file_that_took_anothers_mtime_has_another_stamp(tmp_path: Path) -> None:
    url = f"file://{fill(tmp_path / 'home')}/photos"
    before = find_photos(url).paths[1]
    file = tmp_path / "home" / "photos" / "pear" / "1.png"
    told = file.stat()
    time.sleep(0.02)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))
    after = find_photos(url).paths[1]
    assert isinstance(before, Remote)
    assert isinstance(after, Remote)
    assert (after.url, after.size) == (before.url, before.size)
    assert after.stamp != before.stamp


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_manifests(store: str, name: str) -> None:
    found = find_photos(f"{store}/{name}")
    assert listed(found) == [
        (f"{store}/photos/apple/0.png", "a"),
        (f"{store}/photos/pear/1.png", "b"),
    ]
    assert photo_pixels(found.paths[0], PREPROCESS).any()
    assert len(found.notes) == (name == "list.csv")  # which has splits


def test_a_manifest_here_of_photos_there(store: str, tmp_path: Path) -> None:
    file = tmp_path / "mixed.csv"
    Image.new("RGB", (4, 4)).save(tmp_path / "own.png")
    file.write_text(
        f"path,label\n{store}/photos/apple/0.png,a\nown.png,b\n{store}/gone.png,b\n"
    )
    found = find_photos(file)
    assert listed(found)[0] == (f"{store}/photos/apple/0.png", "a")
    assert photo_pixels(found.paths[0], PREPROCESS).any()
    with pytest.raises(
        UnreadableImageError, match=rf"^cannot read the image {store}/gone.png"
    ):
        [photo_pixels(path, PREPROCESS) for path in found.paths]


@pytest.mark.parametrize("name", ["shards", "shards/s-{0..1}.tar", "shards/s-*.tar"])
def test_shards(store: str, name: str) -> None:
    found = find_photos(f"{store}/{name}")
    assert listed(found) == [
        (f"{store}/shards/s-0.tar:0.png", "apple"),
        (f"{store}/shards/s-1.tar:1.png", "pear"),
    ]
    for path in found.paths:
        assert isinstance(path, Member)
        assert isinstance(path.archive, Remote)
        assert path.archive.stamp
        assert photo_pixels(path, PREPROCESS).any()


def test_what_is_not_there(store: str) -> None:
    with pytest.raises(ShardError, match=r"^there is no shard .*/s-2.tar; mend the name"):
        find_photos(f"{store}/shards/s-{{0..2}}.tar")
    with pytest.raises(NoImagesError, match="no shard matches"):
        find_photos(f"{store}/shards/t-*.tar")
    with pytest.raises(RemoteError, match=r"^there is nothing at .*/gone.csv \("):
        find_photos(f"{store}/gone.csv")
    with pytest.raises(RemoteError, match=r"^there is nothing at .*/gone \("):
        find_photos(f"{store}/gone")
    with pytest.raises(NoImagesError, match=r"holds images, but none in class subfolders"):
        find_photos(f"{store}/photos/pear/deep")
    with pytest.raises(ManifestError, match=r"/1.png is a photo, not a manifest; name the"):
        find_photos(f"{store}/photos/pear/1.png")
    with pytest.raises(RemoteError, match=r"^there is nothing at .*/photos/val \("):
        find_photos(f"{store}/photos", split="val")


def test_a_shard_that_is_none(store: str) -> None:
    fs, path = fsspec.core.url_to_fs(f"{store}/shards/none.tar")
    fs.pipe_file(path, b"no tar at all")
    try:
        with pytest.raises(ShardError, match=r"^the shard .*none.tar is no tar file; copy it"):
            find_photos(f"{store}/shards/none.tar")
    finally:
        fs.rm(path)


# Manifests there -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/etc/passwd.png", "../else/1.png", "a/../../1.png"])
def test_a_manifest_there_does_not_reach_this_machine_s_files(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / "list.csv").write_text(f"path,label\n1.png,a\n{path},b\n")
    with pytest.raises(ManifestError) as caught:
        find_photos(f"file://{tmp_path}/list.csv")
    assert str(caught.value).endswith(
        f"list.csv, line 3: {path!r} leads out of the manifest's folder; "
        "write a path below it, or a whole URL"
    )


# Refusals ------------------------------------------------------------------------------------


def test_a_bucket_that_there_is_not(s3: str) -> None:
    assert s3
    with pytest.raises(RemoteError) as caught:
        find_photos("s3://vegetables/photos")
    assert str(caught.value).startswith("there is nothing at s3://vegetables/photos (")
    assert "\n" not in str(caught.value)


def test_a_store_without_this_machine_s_credentials(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fsspec.get_filesystem_class("s3")
    store.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    try:
        with pytest.raises(RemoteError) as caught:
            find_photos(f"{s3}/photos")
    finally:
        store.clear_instance_cache()
    assert "redentials" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_store_that_cannot_be_reached(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.get_filesystem_class("s3")
    store.clear_instance_cache()
    with deaf_port() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        try:
            for name in ("photos", "list.csv", "shards/s-*.tar", "shards/s-0.tar"):
                with pytest.raises(RemoteError) as caught:
                    find_photos(f"{s3}/{name}")
                assert str(caught.value).startswith(f"cannot read {s3}/{name}: ")
                assert "check the network, the store's address" in str(caught.value)
                assert "\n" not in str(caught.value)
            with pytest.raises(OSError, match=str(port)):
                Remote(f"{s3}/photos/pear/1.png").read_bytes()
        finally:
            store.clear_instance_cache()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nothing://at/all", "no kind of store has URLs like nothing://at/all (Protocol not"),
        ("zip://*.png::s3://b/x.zip", "zip://*.png::s3://b/x.zip is a chain of stores, which"),
    ],
)
def test_a_url_of_no_store(url: str, said: str) -> None:
    with pytest.raises(RemoteError) as caught:
        find_photos(url)
    assert str(caught.value).startswith(said)


def test_a_url_of_no_store_among_others_is_a_broken_photo(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    file = tmp_path / "list.csv"
    file.write_text("path,label\n1.png,a\nnothing://at/all.png,b\n")
    with pytest.raises(UnreadableImageError) as caught:
        photo_pixels(find_photos(file).paths[1], PREPROCESS)
    assert str(caught.value).startswith(
        "cannot read the image nothing://at/all.png: no kind of store has URLs like"
    )


def test_a_hub_that_cannot_be_reached() -> None:
    """The tests run with the hub's client told to stay offline."""
    pytest.importorskip("huggingface_hub", reason="needs the client for hf://")
    with pytest.raises(RemoteError) as caught:
        find_photos("hf://datasets/nobody/nothing")
    assert str(caught.value).startswith("cannot read hf://datasets/nobody/nothing: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "url", "package", "extra"),
    [
        ("fsspec", "file:///x", "fsspec", "data"),
        ("s3fs", "s3://b/x", "s3fs", "s3"),
        ("gcsfs", "gs://b/x", "gcsfs", "gcs"),
        ("huggingface_hub", "hf://datasets/a/b", "huggingface_hub", "hf"),
    ],
)
def test_a_store_whose_package_is_missing(
    module: str, url: str, package: str, extra: str
) -> None:
    """In a fresh interpreter, since fsspec remembers the classes it has imported."""
    code = (
        "import sys\n"
        f"sys.modules[{module!r}] = None\n"
        "from edge_imprint.photos import Remote, find_photos\n"
        "from edge_imprint_runtime.errors import MissingPackageError\n"
        f"for call in (lambda: find_photos({url!r}), Remote({url + '/1.png'!r}).read_bytes):\n"
        "    try:\n"
        "        call()\n"
        "        print('none')\n"
        "    except MissingPackageError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    one, other = done.stdout.splitlines()
    for line, name in ((one, url), (other, f"{url}/1.png")):
        assert line == str(MissingPackageError(package, f"reading {name}", extra))
