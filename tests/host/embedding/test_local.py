# SPDX-License-Identifier: Apache-2.0
"""The local engine: the same bytes whatever decodes and embeds, and nothing is left behind."""

from __future__ import annotations

import gc
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_imprint import Backbone, load_backbone
from edge_imprint.embedding import local
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint.embedding.engine import Broken, Embedded, Result
from edge_imprint.embedding.local import LocalEngine
from edge_imprint_runtime.errors import ParameterError, ProviderError
from edge_imprint_runtime.images import photo_pixels
from edge_imprint_runtime.quick import DECODES
from tests.standins.deadly_photos import DeadlyPhoto


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Smooth photos of odd sizes, one of which is broken."""
    folder, rng, made = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), []
    for i in range(37):
        made.append(folder / f"{i}.jpg")
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((100 + i, 90)).save(made[-1])
    made[11].write_bytes(made[11].read_bytes()[:300])
    return made


@pytest.fixture(scope="module", params=["demo", "timm/test_vit", "timm/test_efficientnet"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(request.param, random_weights=request.param != "demo")


def rows_of(results: Iterable[Result]) -> dict[int, npt.NDArray[np.float32]]:
    """Return each photo's row; no photo may come twice."""
    rows: dict[int, npt.NDArray[np.float32]] = {}
    for one in results:
        if isinstance(one, Embedded):
            assert one.rows.dtype == np.float32
            assert len(one.indices) == len(one.digests) == len(one.rows)
            assert not rows.keys() & set(one.indices)
            rows |= dict(zip(one.indices, one.rows, strict=True))
    return rows


def bytes_of(engine: LocalEngine, photos: Sequence[Any]) -> dict[str, bytes]:
    """Return each good photo's embedding by its name."""
    rows = rows_of(engine.embed(photos))
    engine.close()
    return {str(photos[i]): row.tobytes() for i, row in rows.items()}


def test_the_same_bytes_whatever_decodes_and_embeds(
    backbone: Backbone, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "cores", lambda: 1)
    want = bytes_of(LocalEngine(backbone, workers=0), photos)
    assert len(want) == 36
    assert len(set(want.values())) == 36
    backwards, some = photos[::-1], photos[3:17:3]
    for cores in (1, 3):
        monkeypatch.setattr(local, "cores", lambda cores=cores: cores)
        assert bytes_of(LocalEngine(backbone, workers=2), backwards) == want
        assert bytes_of(LocalEngine(backbone, workers=0), photos) == want
        few = bytes_of(LocalEngine(backbone, workers=0), some)
        assert few == {str(photo): want[str(photo)] for photo in some}
    for batch in (1, 3, 16):
        assert bytes_of(LocalEngine(backbone, workers=0, batch=batch), photos) == want


@pytest.mark.parametrize("decode", DECODES)
def test_rows_and_digests_are_those_of_the_photos(
    backbone: Backbone, photos: list[Path], decode: str
) -> None:
    engine = LocalEngine(backbone, decode=decode)
    results = list(engine.embed(photos))
    engine.close()
    embed, p = ort_embedder(backbone), backbone.info.preprocess
    pixels = {
        i: photo_pixels(photo, p, decode=decode) for i, photo in enumerate(photos) if i != 11
    }
    for one in results:
        if isinstance(one, Broken):
            assert one.index == 11
            assert str(photos[11]) in one.problem
            continue
        want = embed(np.stack([pixels[i] for i in one.indices]))
        scale = np.abs(want).max()
        np.testing.assert_allclose(one.rows, want, rtol=1e-4, atol=1e-4 * scale)
        for i, digest in zip(one.indices, one.digests, strict=True):
            assert digest == hashlib.sha256(photos[i].read_bytes()).digest()
    assert sorted(rows_of(results)) == sorted(pixels)
    assert (engine.device, engine.arithmetic, engine.notes) == ("cpu", "fp32", [])


def test_photos_that_crash_the_decoder_are_broken_and_the_rest_is_embedded(
    network: Backbone, photos: list[Path], tmp_path: Path
) -> None:
    deadly: list[Any] = photos * 2  # enough of them that processes decode
    deadly[5] = DeadlyPhoto(photos[5], os.getpid())
    deadly[50] = DeadlyPhoto(photos[13], os.getpid(), signal.SIGKILL, tmp_path / "once")
    engine = LocalEngine(network)
    results = list(engine.embed(deadly))
    engine.close()
    broken = {one.index: one.problem for one in results if isinstance(one, Broken)}
    assert sorted(broken) == [5, 11, 48]
    assert broken[5] == (
        f"the image {photos[5]} ends the process that decodes it (SIGSEGV); "
        "replace it or take it out"
    )
    rows = rows_of(results)
    assert sorted(rows) == [i for i in range(74) if i not in broken]
    assert rows[50].tobytes() == rows[13].tobytes()
    assert engine.notes == []


def test_no_photos_no_work(network: Backbone) -> None:
    engine = LocalEngine(network)
    assert list(engine.embed([])) == []
    assert engine._embedder is None


def test_what_embeds_is_given_back_and_loaded_again(
    network: Backbone, photos: list[Path]
) -> None:
    engine = LocalEngine(network, device="cpu")
    results = engine.embed(photos)
    first = [next(results)]
    held = weakref.ref(engine._embedder)
    first += results
    assert engine._embedder is None
    gc.collect()
    assert held() is None
    rows, again = rows_of(first), rows_of(engine.embed(photos))
    assert len(rows) == 36
    assert {i: row.tobytes() for i, row in rows.items()} == {
        i: row.tobytes() for i, row in again.items()
    }


def test_an_engine_loads_nothing_before_the_first_photo() -> None:
    code = (
        "import sys\n"
        "from edge_imprint import load_backbone\n"
        "from edge_imprint.embedding.local import LocalEngine\n"
        "engine = LocalEngine(load_backbone('demo'), device='cpu')\n"
        "engine.close()\n"
        "heavy = {'torch', 'timm', 'onnx', 'onnxruntime', 'ray', 'multiprocessing'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_without_memory_to_share_threads_decode(
    network: Backbone, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_imprint.embedding import decoders

    def refuse(shape: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoders, "shared_memory", refuse)
    engine = LocalEngine(network, workers=2)
    assert len(rows_of(engine.embed(photos))) == 36
    want = (
        "photos were decoded without worker processes, for which there is no memory to "
        "share: No space left on device"
    )
    assert engine.notes == [want]
    engine.close()


# Ends --------------------------------------------------------------------------------------


def children() -> set[int]:
    """Return the numbers of this process's children that have not ended."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for one in lists for pid in one.read_text().split()}


@pytest.mark.parametrize("how", ["generator", "engine", "engine, from elsewhere"])
def test_an_end_in_the_middle_leaves_nothing(
    network: Backbone, photos: list[Path], how: str
) -> None:
    before, threads = children(), set(threading.enumerate())
    engine = LocalEngine(network, workers=2)
    results = engine.embed(photos * 20)
    next(results)
    assert children() - before
    if how == "generator":
        results.close()  # type: ignore[attr-defined]
    elif how == "engine":
        engine.close()
    else:
        other = threading.Thread(target=engine.close)
        other.start()
        other.join()
    assert list(results) == []
    assert children() <= before
    assert set(threading.enumerate()) <= threads
    assert len(rows_of(engine.embed(photos))) == 36  # and it can be used again
    engine.close()


# As a user's script: no `if __name__ == "__main__"`, and the build at the top level.
SCRIPT = """
import os, sys
from pathlib import Path
from edge_imprint import load_backbone
from edge_imprint.embedding.local import LocalEngine
photos = sorted(Path(sys.argv[1]).glob("*.jpg")) * 1000
for i, result in enumerate(LocalEngine(load_backbone("demo"), workers=2).embed(photos)):
    if i == 50:
        print(os.getpid(), flush=True)
"""


def group(leader: int) -> list[int]:
    """Return the processes of a group that run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def shared_memories() -> set[str]:
    """Return what bears a name of ours or of Python's; other programs' come and go."""
    names = ("edge-imprint", "psm_", "sem.", "pym-", "pymp-")
    return {name for name in os.listdir("/dev/shm") if name.startswith(names)}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_a_script_that_is_interrupted_leaves_no_process_and_no_memory(
    photos: list[Path], tmp_path: Path, how: signal.Signals
) -> None:
    script = tmp_path / "build.py"
    script.write_text(SCRIPT)
    shared = shared_memories()
    with subprocess.Popen(
        [sys.executable, str(script), str(photos[0].parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == f"{process.pid}\n"
        assert len(group(process.pid)) >= 2  # itself, and those that decode
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does
        else:
            process.send_signal(how)
        said = process.stderr.read()
    assert ("KeyboardInterrupt" in said) == (how == signal.SIGINT)
    assert "leaked" not in said
    assert process.returncode == -how
    end = time.monotonic() + 120
    while group(process.pid):  # a worker ends once it sees that nobody asks any more
        assert time.monotonic() < end
        time.sleep(0.01)
    assert shared_memories() <= shared


# Options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, "workers must be an integer >= 0, got -1"),
        ({"batch": 0}, "batch must be an integer >= 1, got 0"),
        ({"decode": "fast"}, "decode must be one of exact, quick, draft, got 'fast'"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda, got 'gpu'"),
    ],
)
def test_options_out_of_range(network: Backbone, options: Any, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        LocalEngine(network, **options)
    assert str(caught.value) == message


def test_autocast_without_cuda(network: Backbone) -> None:
    with pytest.raises(ParameterError) as caught:
        LocalEngine(network, device="cpu", autocast="bf16")
    assert str(caught.value) == (
        f"--autocast bf16 is for a torch backbone on CUDA, and {network.info.name} is "
        "embedded by ONNX Runtime on cpu here; leave it out"
    )


def test_cuda_where_there_is_none(network: Backbone) -> None:
    from edge_imprint.embedding.gpus import find_gpus

    if find_gpus().count:
        pytest.skip("this machine has CUDA")
    with pytest.raises(ProviderError, match="there is no CUDA device on this machine"):
        LocalEngine(network, device="cuda")


def test_a_cuda_provider_that_does_not_start(
    network: Backbone, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Under auto the CPU serves; asked for, it is an error.
    import onnxruntime

    from edge_imprint.embedding.gpus import Choice

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    monkeypatch.setattr(local, "choose_device", lambda device, has_module: Choice("cuda"))
    engine = LocalEngine(network)
    assert engine.device == "cpu"
    assert len(rows_of(engine.embed(photos))) == 36
    (note,) = engine.notes
    assert note.startswith("photos are embedded on the CPU: this ONNX Runtime has no CUDA")
    asked = LocalEngine(network, device="cuda")
    with pytest.raises(ProviderError):
        list(asked.embed(photos))
