# SPDX-License-Identifier: Apache-2.0
"""Libraries found by their files, and packages by their names."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from edge_imprint_runtime.doctor import libraries


def lay(folder: Path, *names: str) -> Path:
    """Lay files, and links to them as ``LINK>FILE``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        link, _, file = name.partition(">")
        if file:
            (folder / link).symlink_to(file)
        else:
            (folder / link).write_bytes(b"\x7fELF")
    return folder


def test_a_version_is_read_off_the_file_behind_the_link(tmp_path: Path) -> None:
    cuda = lay(
        tmp_path / "cuda", "libcudart.so.12.6.68", "libcudart.so.12>libcudart.so.12.6.68"
    )
    own = lay(tmp_path / "own", "libcudnn.so.8.9.4", "libcudnn.so.8>libcudnn.so.8.9.4")
    lay(own, "libnvinfer.so.10.3.0", "libnvinfer.so>libnvinfer.so.10.3.0")
    found = libraries.find_libraries([("CUDA folder", cuda), ("system", own)])
    assert found["cudart"] == [
        {
            "file": "libcudart.so.12",
            "version": "12.6.68",
            "path": str(cuda / "libcudart.so.12"),
            "origin": "CUDA folder",
        }
    ]
    assert [(one["file"], one["version"]) for one in found["cudnn"]] == [
        ("libcudnn.so.8", "8.9.4")
    ]
    assert [(one["file"], one["version"]) for one in found["nvinfer"]] == [
        ("libnvinfer.so.10", "10.3.0")
    ]
    assert found["cublas"] == []
    assert set(found) == set(libraries.FAMILIES)


def test_two_versions_are_two_and_one_seen_twice_is_one(tmp_path: Path) -> None:
    one = lay(tmp_path / "one", "libcudnn.so.8", "libcudnn.so.9", "libcudnn.so.9.txt")
    again = tmp_path / "again"
    again.symlink_to(one)
    found = libraries.find_libraries([("system", one), ("LD_LIBRARY_PATH", again)])
    assert [entry["file"] for entry in found["cudnn"]] == ["libcudnn.so.8", "libcudnn.so.9"]
    assert {entry["origin"] for entry in found["cudnn"]} == {"system"}


def test_the_runtime_of_cuda_11_is_asked_for_by_two_numbers(tmp_path: Path) -> None:
    folder = lay(tmp_path, "libcudart.so.11.4.298", "libcudart.so.11.0>libcudart.so.11.4.298")
    found = libraries.find_libraries([("system", folder)])
    assert found["cudart"][0]["file"] == "libcudart.so.11.0"
    assert found["cudart"][0]["version"] == "11.4.298"


def test_pip_tells_the_version_that_a_file_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {
        "nvidia-cudnn-cu12": {"version": "9.1.0.70", "tags": []},
        "nvidia-cudnn-cu11": {"version": "8.7.0.1", "tags": []},
    }
    monkeypatch.setattr(libraries, "packages", lambda: known)
    folder = lay(tmp_path, "libcudnn.so.9", "libcublas.so.12")
    found = libraries.find_libraries([("pip", folder)])
    assert found["cudnn"][0]["version"] == "9.1.0.70"
    assert found["cublas"][0]["version"] == "12"


def test_folders_that_are_not_there_hold_nothing(tmp_path: Path) -> None:
    found = libraries.find_libraries([("system", tmp_path / "none")])
    assert not any(found.values())


@pytest.mark.parametrize(
    ("files", "version", "own"),
    [
        ((), (8, 5, 3), True),
        (("libcublas.so.11",), (8, 5, 3), True),
        (("libcublas.so.13", "libcudnn.so.9"), (8, 5, 3), True),
        (("libcublas.so.11", "libcudnn.so.8"), (8, 5, 3), False),
        (("libcublas.so.12", "libcudnn.so.8"), (8, 6, 2), False),
        ((), (10, 3, 0), False),
        ((), (11, 1, 0), False),
    ],
)
def test_tensorrt_8_without_cublas_or_cudnn_has_its_own_kernels(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: tuple[str, ...],
    version: tuple[int, ...],
    own: bool,
) -> None:
    folder = lay(tmp_path / "lib", *files)
    monkeypatch.setattr(libraries, "folders", lambda: [("system", folder)])
    assert libraries.needs_own_kernels(version) is own


def test_the_loaders_own_path_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    lay(site / "nvidia" / "cudnn" / "lib", "libcudnn.so.9")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}/a::{tmp_path}/b")
    places = libraries.folders()
    assert places[:2] == [
        ("LD_LIBRARY_PATH", tmp_path / "a"),
        ("LD_LIBRARY_PATH", tmp_path / "b"),
    ]
    assert ("pip", site / "nvidia" / "cudnn" / "lib") in places
    assert any(origin == "system" for origin, _ in places)
    assert len(places) == len(set(places))


def test_packages_have_versions_and_the_tags_of_their_wheels() -> None:
    found = libraries.packages()
    assert found["onnxruntime"]["version"] == metadata.version("onnxruntime")
    assert all("cp3" in tag or "py3" in tag for tag in found["onnxruntime"]["tags"])
    assert "pytest" not in found


def test_a_package_that_is_spelt_otherwise_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "tensorrt_cu13_libs-11.4.0.dist-info"
    home.mkdir()
    (home / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tensorrt_cu13_libs\nVersion: 11.4.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert libraries.packages()["tensorrt-cu13-libs"] == {"version": "11.4.0", "tags": []}
