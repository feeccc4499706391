# SPDX-License-Identifier: Apache-2.0
"""The tables of backbones: what they say is what the networks are; what is asked is found."""

from __future__ import annotations

import math
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.backbones import hub, listing, load_backbone
from edge_imprint.backbones.listing import (
    Entry,
    Table,
    list_backbones,
    near_names,
    read_table,
    shipped,
    write_table,
)

TIMM, TORCHVISION = 1371, 80
ONE = Entry("timm/x_1", 8, 100, 32, 32, "hub:timm/x_1.a1")
TWO = Entry("timm/y_1", 0, 50, 32, 16, "")


def found(pattern: str = "", **options: float) -> list[str]:
    return [entry.name for entry in list_backbones(pattern, **options).entries]


@pytest.fixture
def another_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of an older timm: without two networks of today, with one that is gone."""
    entries = [
        e for e in shipped().entries if e.name not in ("timm/resnet18", "timm/lcnet_035")
    ]
    entries.append(Entry("timm/resnet_of_old", 8, 8, 8, 8, ""))
    table = Table(tuple(entries), {**shipped().versions, "timm": "0.0.1"})
    monkeypatch.setattr(listing, "shipped", lambda: table)


# The tables --------------------------------------------------------------------------------


def test_the_tables_are_small_and_of_the_installed_versions() -> None:
    kinds = [entry.name.partition("/")[0] for entry in shipped().entries]
    assert kinds == ["demo", *["timm"] * TIMM, *["torchvision"] * TORCHVISION]
    assert len({entry.name for entry in shipped().entries}) == len(kinds)
    files = [Path(listing._FOLDER) / f"{library}.csv" for library in listing.LIBRARIES]
    assert sum(os.path.getsize(file) for file in files) < 100_000
    for library, version in shipped().versions.items():
        assert metadata.version(library).partition("+")[0] == version


def test_few_networks_give_no_vector() -> None:
    unfit = [entry.name for entry in shipped().entries if not entry.embedding_size]
    assert len(unfit) == 7
    assert all(name.endswith("_enc") for name in unfit)


def test_a_sample_of_the_tables_measured_anew() -> None:
    from edge_imprint.backbones.measure import measure

    rng = np.random.default_rng(20)
    small = [e for e in shipped().entries if "/" in e.name and e.parameters < 30e6]
    sample = [small[i] for i in rng.choice(len(small), 16, replace=False)]
    assert {entry.name.partition("/")[0] for entry in sample} == set(listing.LIBRARIES)
    assert [measure(entry.name) for entry in sample] == sample


def test_every_name_of_the_libraries_is_in_the_tables() -> None:
    from edge_imprint.backbones.measure import names

    assert names() == [entry.name for entry in shipped().entries][1:]


@pytest.mark.parametrize(
    "name", ["demo", "timm/test_vit", "timm/test_resnet", "torchvision/squeezenet1_1"]
)
def test_the_table_is_what_a_loaded_backbone_is(name: str) -> None:
    import torch

    entry = shipped().find(name)
    assert entry is not None
    backbone = load_backbone(name, random_weights=name != "demo")
    preprocess = backbone.info.preprocess
    assert (preprocess.height, preprocess.width) == (entry.height, entry.width)
    module = backbone.module
    if module is None:
        from edge_imprint.backbones import glyphnet

        module = glyphnet.torch_module(glyphnet.load_weights())
    images = torch.zeros(1, 3, entry.height, entry.width)
    assert module(images).shape == (1, entry.embedding_size)
    assert sum(weight.numel() for weight in module.parameters()) == entry.parameters


def test_a_network_of_another_form_has_no_embedding_size() -> None:
    from edge_imprint.backbones.measure import measure

    assert measure("timm/qwen3_vit_88m_enc").embedding_size == 0


# Text and back -----------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,30}", fullmatch=True)
SOURCES = st.one_of(
    st.just(""),
    NAMES.map(lambda text: f"hub:other/{text}/{text}.bin"),
    NAMES.map(lambda text: f"file:{text}-0123abcd.pth"),
)


@given(
    library=st.sampled_from(listing.LIBRARIES),
    rows=st.lists(st.tuples(NAMES, SOURCES, *[st.integers(0, 2**40)] * 4), max_size=8),
)
def test_a_table_is_read_as_it_was_written(
    library: str, rows: list[tuple[str, str, int, int, int, int]], tmp_path_factory: object
) -> None:
    folder = tmp_path_factory.mktemp("t")  # type: ignore[attr-defined]
    entries = [Entry(f"{library}/{n}", a, b, c, d, s) for n, s, a, b, c, d in rows]
    if library == "timm" and entries:
        name = entries[0].name
        entries.append(Entry(name, 1, 2, 3, 4, f"hub:{name}.a_tag"))
    file = folder / "t.csv"
    file.write_text(write_table(library, "1.2.3", entries))
    assert read_table(file) == Table(tuple(entries), {library: "1.2.3"})


def test_what_a_table_looks_like() -> None:
    assert write_table("timm", "1.2", [ONE, TWO]).splitlines() == [
        "# timm 1.2",
        "name,embedding,parameters,input,weights",
        "x_1,8,100,32,a1",
        "y_1,0,50,32x16,",
    ]


# What is asked -----------------------------------------------------------------------------


def test_a_part_of_a_name() -> None:
    assert {"timm/resnet18", "torchvision/resnet18", "timm/seresnet18"} < set(
        found("ResNet18")
    )
    assert all("resnet18" in name for name in found("ResNet18"))
    assert len(found("torchvision/")) == TORCHVISION


def test_a_pattern_of_the_whole_name() -> None:
    assert found("resnet1?") == ["timm/resnet18", "torchvision/resnet18"]
    assert found("timm/resnet1[8]") == ["timm/resnet18"]
    assert found("*/vgg11") == ["timm/vgg11", "torchvision/vgg11"]
    assert found("d*o") == ["demo"]


def test_all_small_ones_first() -> None:
    listed = list_backbones()
    assert len(listed.entries) == listed.known == listed.matches == TIMM + TORCHVISION + 1
    counts = [entry.parameters for entry in listed.entries]
    assert counts == sorted(counts)
    assert listed.notes == ()


def test_a_limit_of_parameters() -> None:
    listed = list_backbones("mobilenet", max_parameters=1.1e6)
    assert 0 < len(listed.entries) < listed.matches < listed.known
    assert max(entry.parameters for entry in listed.entries) <= 1.1e6
    exact = listed.entries[0].parameters
    assert listed.entries[0].name in found("mobilenet", max_parameters=exact)
    assert listed.entries[0].name not in found("mobilenet", max_parameters=exact - 1)


def test_nothing_fits() -> None:
    assert found("no such thing") == []


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("resnet81", "timm/resnet18"),
        ("timm/mobilnetv3_large_100", "timm/mobilenetv3_large_100"),
        ("resnet50.ram_in1k", "timm/resnet50"),
        ("VIT_B16", "torchvision/vit_b_16"),
        ("*demmo*", "demo"),
    ],
)
def test_near_names(pattern: str, near: str) -> None:
    assert near in near_names(pattern)
    assert len(near_names(pattern)) <= 3


def test_no_near_names() -> None:
    assert near_names("0" * 40) == []


# Weights -----------------------------------------------------------------------------------


def test_where_the_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entries = {
        name: shipped().find(name)
        for name in ("demo", "timm/resnet18", "timm/lcnet_035", "torchvision/resnet18")
    }
    states = {name: entry.weights for name, entry in entries.items() if entry is not None}
    assert states == {
        "demo": "here",
        "timm/resnet18": "download",
        "timm/lcnet_035": "none",
        "torchvision/resnet18": "download",
    }
    kept = tmp_path / "huggingface/hub/models--timm--resnet18.a1_in1k/snapshots/0"
    kept.mkdir(parents=True)
    (kept / "model.safetensors").write_bytes(b"")
    hub.weights_folder().mkdir(parents=True)
    source = entries["torchvision/resnet18"]
    assert source is not None
    (hub.weights_folder() / source.source.removeprefix("file:")).write_bytes(b"")
    states = {name: entry.weights for name, entry in entries.items() if entry is not None}
    assert states["timm/resnet18"] == states["torchvision/resnet18"] == "here"


# Other versions ----------------------------------------------------------------------------


@pytest.mark.usefixtures("another_timm")
def test_what_another_version_has_is_measured() -> None:
    version = metadata.version("timm")
    listed = list_backbones("resnet18")
    (entry,) = [entry for entry in listed.entries if entry.name == "timm/resnet18"]
    assert (entry.embedding_size, entry.parameters) == (512, 11_176_512)
    assert entry.source == "hub:timm/resnet18.a1_in1k"
    assert listed.versions["timm"] == version
    (note,) = listed.notes
    assert note == (
        f"the table is of timm 0.0.1, {version} is installed here: what the table lacks was "
        "measured"
    )
    assert listed.known == TIMM + TORCHVISION + 1
    assert found("resnet_of_old") == []


@pytest.mark.usefixtures("another_timm")
def test_what_is_not_asked_for_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MOST_MEASURED", 1)
    entries = {entry.name: entry for entry in list_backbones().entries}
    sizes = [entries[name].embedding_size for name in ("timm/lcnet_035", "timm/resnet18")]
    assert sizes == [1280, None]
    assert found("resnet18", max_parameters=math.inf)[0] == "timm/resnet18"


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(library: str) -> str:
        raise metadata.PackageNotFoundError(library)

    monkeypatch.setattr(listing.metadata, "version", version)
    listed = list_backbones("resnet18")
    assert {"timm/resnet18", "torchvision/resnet18"} <= {e.name for e in listed.entries}
    timm = shipped().versions["timm"]
    assert listed.notes[0] == (
        f"the table is of timm {timm}, and timm is not installed here; "
        "run: pip install 'edge-imprint[host]'"
    )
    assert len(listed.notes) == 2
