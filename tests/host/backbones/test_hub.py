# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights: from the hub's client and from plain addresses, and how they are missed.

The hub is a server on this machine that answers as a hub does; the client is the real one.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_imprint.backbones import download as downloads
from edge_imprint.backbones import hub, load_backbone
from edge_imprint.backbones.listing import shipped
from edge_imprint_runtime.errors import WeightsError
from tests.standins.file_server import FileServer, serve

REPOSITORY = "timm/test_efficientnet.r160_in1k"
ADDRESS = f"/{REPOSITORY}/resolve/main/model.safetensors"
COMMIT = "a" * 40


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    """A network of timm as the hub keeps it, with its classifier."""
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return dict(timm.create_model("test_efficientnet").state_dict())


@pytest.fixture(scope="module")
def content(tensors: dict[str, Any]) -> bytes:
    from safetensors.torch import save

    return save(tensors)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(downloads, "_PAUSE_S", 0.0)
    return tmp_path


@pytest.fixture
def server(
    folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    from huggingface_hub import constants

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serve() as state:
        state.files[ADDRESS] = content
        state.headers = {"X-Repo-Commit": COMMIT}
        monkeypatch.setattr(constants, "ENDPOINT", state.url)
        template = state.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield state


def weights_asked(server: FileServer) -> list[str | None]:
    """Give the ranges asked of the weights; the client asks for more, of itself."""
    return [asked for path, asked in server.asked if path == ADDRESS]


# timm, from the hub ------------------------------------------------------------------------


def test_weights_come_from_the_hub_once(
    server: FileServer, folder: Path, tensors: dict[str, Any]
) -> None:
    import torch

    assert not hub.are_here(f"hub:{REPOSITORY}")
    first = load_backbone("timm/test_efficientnet")
    assert first.info.weights == "pretrained"
    assert first.module is not None
    state = first.module.state_dict()
    assert all(torch.equal(value, tensors[key]) for key, value in state.items())
    assert weights_asked(server) == [None]
    assert hub.are_here(f"hub:{REPOSITORY}")
    server.asked.clear()
    overlay = hub.timm_weights("test_efficientnet")
    kept = folder / "huggingface/hub" / f"models--{REPOSITORY.replace('/', '--')}"
    assert overlay["file"] == str(kept / "snapshots" / COMMIT / "model.safetensors")
    assert not server.asked  # nothing of the network where the file is here


def test_the_same_file_given_by_hand_is_the_same_backbone(
    server: FileServer, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "by-hand").write_bytes(content)
    pretrained = load_backbone("timm/test_efficientnet").info
    by_hand = load_backbone("timm/test_efficientnet", weights=tmp_path / "by-hand").info
    assert by_hand.digest == pretrained.digest


def test_a_tag_names_other_weights(server: FileServer) -> None:
    with pytest.raises(WeightsError, match=r"timm/test_vit\.r160_in1k \("):
        hub.timm_weights("test_vit.r160_in1k")
    assert ("/timm/test_vit.r160_in1k/resolve/main/model.safetensors") not in server.files


def test_the_hubs_client_goes_on_where_it_was_cut(server: FileServer, folder: Path) -> None:
    """In a process of its own, by the endpoint's variable, as a mirror is named."""
    content = np.random.default_rng(0).bytes(35_000_000)  # it writes 10 MiB at a time
    server.files[ADDRESS], server.cuts = content, [12_000_000, 11_000_000]
    code = (
        "from edge_imprint.backbones import hub\n"
        "print(hub.timm_weights('test_efficientnet')['file'])"
    )
    env = {**os.environ, "HF_ENDPOINT": server.url}
    del env["HF_HUB_OFFLINE"]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == content
    assert [re.sub("[0-9]+", "N", asked or "") for asked in weights_asked(server)] == [
        "",
        "bytes=N-",
        "bytes=N-",
    ]


def test_wrong_bytes_from_the_hub_are_not_kept(server: FileServer, folder: Path) -> None:
    server.etag = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(WeightsError, match="the SHA-256 differs"):
        hub.timm_weights("test_efficientnet")
    assert not hub.are_here(f"hub:{REPOSITORY}")
    server.etag = ""
    hub.timm_weights("test_efficientnet")
    assert hub.are_here(f"hub:{REPOSITORY}")


@pytest.mark.parametrize("code", [401, 404, 500])
def test_a_hub_that_refuses(server: FileServer, code: int) -> None:
    server.codes = [code] * 50
    with pytest.raises(WeightsError) as caught:
        hub.timm_weights("test_efficientnet")
    text = str(caught.value)
    assert text.startswith("cannot get the pretrained weights of timm/test_efficientnet (")
    assert str(code) in text
    assert "get the file model.safetensors (about 1.4 MB) of the hub's repository " in text
    assert "\n" not in text


def test_no_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "no_connection", lambda _: "no connection to the hub: gone")
    with pytest.raises(WeightsError) as caught:
        hub.timm_weights("resnet18")
    assert str(caught.value) == (
        "cannot get the pretrained weights of timm/resnet18 (no connection to the hub: gone): "
        "where there is a network, get the file model.safetensors (about 46.8 MB) of the "
        "hub's repository timm/resnet18.a1_in1k and give it as --weights FILE; "
        "--random-weights tries without"
    )


def test_offline_is_said_at_once(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"\(the hub's client is told to stay offline\)"):
        load_backbone("timm/resnet18")


def test_weights_of_a_form_of_their_own_are_to_be_copied_as_the_hubs_cache(
    folder: Path,
) -> None:
    with pytest.raises(WeightsError) as caught:
        hub.timm_weights("davit_base_fl")
    assert str(caught.value).endswith(
        " by building there once, and copy the folder models--microsoft--Florence-2-base of "
        f"the hub's cache there into {folder}/huggingface/hub here; --random-weights tries "
        "without"
    )


def test_no_weights_at_all() -> None:
    with pytest.raises(WeightsError) as caught:
        hub.timm_weights("lcnet_035")
    assert str(caught.value) == (
        "timm has no pretrained weights for timm/lcnet_035; give --weights FILE; "
        "--random-weights tries without"
    )


# Plain addresses ---------------------------------------------------------------------------


@pytest.fixture
def plain(server: FileServer, content: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    """A torchvision network whose weights are at the server; gives the file's name."""
    from torchvision import models

    file = f"alexnet-owt-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[f"/models/{file}"] = content
    best = models.AlexNet_Weights.DEFAULT.value
    monkeypatch.setattr(
        models.AlexNet_Weights.DEFAULT,
        "_value_",
        type(best)(f"{server.url}/models/{file}", best.transforms, best.meta),
    )
    return file


def test_torchvisions_weights_are_kept_in_our_cache(
    server: FileServer, plain: str, folder: Path, content: bytes
) -> None:
    assert not hub.are_here(f"file:{plain}")
    told: list[tuple[int, int]] = []
    file = hub.torchvision_weights("alexnet", progress=lambda *n: told.append(n))
    assert file == folder / "edge-imprint" / "weights" / plain
    assert file.read_bytes() == content
    assert told[-1] == (len(content), len(content))
    assert hub.are_here(f"file:{plain}")
    assert hub.torchvision_weights("alexnet") == file
    assert len(server.asked) == 1


def test_a_pretrained_backbone_of_torchvision(
    server: FileServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torchvision import models

    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "by-hand.pth")
    content = (tmp_path / "by-hand.pth").read_bytes()
    file = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[f"/{file}"], server.cuts = content, [1_000_000]
    best = models.SqueezeNet1_1_Weights.DEFAULT
    there = type(best.value)(f"{server.url}/{file}", best.value.transforms, best.value.meta)
    monkeypatch.setattr(best, "_value_", there)
    pretrained = load_backbone("torchvision/squeezenet1_1").info
    assert pretrained.weights == "pretrained"
    by_hand = load_backbone("torchvision/squeezenet1_1", weights=tmp_path / "by-hand.pth").info
    assert by_hand.digest == pretrained.digest
    assert len(server.asked) == 2


def test_what_torchs_hub_has_is_used_where_it_is_whole(
    server: FileServer, plain: str, folder: Path, content: bytes
) -> None:
    theirs = folder / "torch" / "hub" / "checkpoints" / plain
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(content)
    assert hub.are_here(f"file:{plain}")
    assert hub.torchvision_weights("alexnet") == theirs
    assert not server.asked
    theirs.write_bytes(content[:-1])
    assert hub.torchvision_weights("alexnet") == hub.weights_folder() / plain
    assert len(server.asked) == 1


def test_torchvisions_server_is_not_there(
    server: FileServer, plain: str, folder: Path
) -> None:
    server.codes = [404]
    with pytest.raises(WeightsError) as caught:
        hub.torchvision_weights("alexnet")
    assert str(caught.value) == (
        "cannot get the pretrained weights of torchvision/alexnet (about 244.4 MB): cannot "
        f"get {server.url}/models/{plain} (the server answers 404 Not Found); get it where "
        f"there is a network and put it at {folder}/edge-imprint/weights/{plain}, or give it "
        "as --weights FILE; --random-weights tries without"
    )


def test_a_terminal_shows_how_far_a_download_is(
    server: FileServer,
    plain: str,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.torchvision_weights("alexnet")
    assert capsys.readouterr().err == ""
    (hub.weights_folder() / plain).unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    hub.torchvision_weights("alexnet")
    shown = capsys.readouterr().err
    assert shown.endswith("\rtorchvision/alexnet: 1.4 MB of 1.4 MB \n")
    assert shown.count("\n") == 1


def test_timms_weights_at_a_plain_address(
    server: FileServer, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    file = f"gcvit-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[f"/{file}"] = content
    config = timm.models.get_pretrained_cfg("gcvit_tiny")
    assert not config.hf_hub_id
    assert config.url
    config.url = f"{server.url}/{file}"
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda _: config)
    got = hub.timm_weights("gcvit_tiny")
    assert got == {"file": str(hub.weights_folder() / file), "custom_load": False}


# Names of files ----------------------------------------------------------------------------


def test_every_plain_file_of_torchvision_carries_its_digest() -> None:
    files = [e.source for e in shipped().entries if e.name.startswith("torchvision/")]
    assert len(files) == 80
    assert all(hub._DIGEST.search(file) for file in files)


@pytest.mark.parametrize(
    ("place", "want"),
    [
        ("timm/x.y", ("timm/x.y", ("model.safetensors", "pytorch_model.bin"))),
        ("timm/x.y/", ("timm/x.y", ("model.safetensors", "pytorch_model.bin"))),
        (
            "a/b/open_clip_pytorch_model.bin",
            ("a/b", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")),
        ),
        ("a/b/net.bin", ("a/b", ("net.safetensors", "net.bin"))),
        ("a/b/d/net.pth", ("a/b", ("d/net.pth",))),
    ],
)
def test_files_of_a_repository(place: str, want: tuple[str, tuple[str, ...]]) -> None:
    assert hub._hub_place(place) == want


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"HF_HOME": "~/h", "TORCH_HOME": "~/t"},
        {"HF_HUB_CACHE": "$HOME/c", "HF_HOME": "/elsewhere"},
    ],
)
def test_the_caches_are_where_their_own_clients_look(
    settings: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch.hub

    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert hub._torch_folder() == Path(torch.hub.get_dir()) / "checkpoints"
    # In a process of its own: the hub's client reads the environment when it is imported.
    code = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert hub._hub_folder() == Path(done.stdout.decode().strip())


def test_a_slow_hub_is_not_waited_for(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.hang = threading.Event()
    monkeypatch.setattr(hub, "no_connection", lambda _: "no answer within 5 s")
    with pytest.raises(WeightsError, match=r"\(no answer within 5 s\)"):
        hub.timm_weights("test_efficientnet")
    assert not server.asked
