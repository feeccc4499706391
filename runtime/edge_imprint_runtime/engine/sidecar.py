# SPDX-License-Identifier: Apache-2.0
"""What lies beside an engine: which model it is, for which machine, and how it was built.

Strict JSON, as `docs/engines.md` has it: limits first, each field of its type, no field twice,
none unknown, and a digest over all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from edge_imprint_runtime.errors import EngineFileError
from edge_imprint_runtime.files import write_atomic

__all__ = [
    "FORMAT",
    "MAX_SIDECAR_BYTES",
    "VERSION",
    "Sidecar",
    "compile_command",
    "read_sidecar",
    "sidecar_path",
    "write_sidecar",
]

FORMAT, VERSION = "edge-imprint.engine", 1
MAX_SIDECAR_BYTES = 64 * 2**20  # 65,536 labels of the longest kind fill most of it
_MAX_TEXT = 4_096
_MAX_NAMES = 64
_MAX_RANK = 8

Value: TypeAlias = tuple[tuple[int | str | None, ...], str]
Shape: TypeAlias = tuple[int, ...]
Range: TypeAlias = tuple[Shape, Shape, Shape]


@dataclass(frozen=True)
class Sidecar:
    """What is known of an engine.

    Attributes:
        engine_bytes: Size of the engine's file.
        engine_sha256: Its digest.
        plan_tensorrt: The version in the engine's own header; None where that holds none.
        model_file: The ONNX file, relative to the engine's folder.
        model_bytes: Its size.
        model_sha256: Its digest.
        graph_sha256: Digest of its graph without the head's numbers; see `refit_engine`.
        head: Shapes of the head's numbers by name, which a refit may replace.
        metadata: The contract, flat, as in the ONNX file.
        inputs: Shape and type by name, images first; a side of any length has a name or None.
        outputs: Likewise.
        profile: Least, usual and greatest shape of each input.
        tensorrt: Which TensorRT made it, such as ``10.3.0.30``.
        gpu_name: The GPU for which it is, as CUDA names it.
        compute_capability: Its compute capability, such as ``8.7``.
        gpu_memory_bytes: Its memory.
        driver: The driver that was there.
        cuda: The version of CUDA that was there.
        precision: Of the backbone, as the contract has it (of a backbone alone: as its graph
            has it): ``fp32``, ``fp16`` or ``int8``.
        strongly_typed: Whether every type is the graph's own; else builder flags allowed what
            the graph has, and what is float32 in it was held to that.
        builder_flags: Those that were set, by name.
        version_compatible: Whether newer TensorRTs may load it.
        hardware_compatible: Which other GPUs may: ``none``, ``ampere+`` or
            ``same_compute_capability``.
        refittable: Whether the head's numbers can be replaced.
        optimization_level: What was asked for; None: TensorRT's own.
        own_kernels: Whether cuBLAS and cuDNN were left out.
        workspace_bytes: The limit of memory while it was built; None: the GPU's.
        build_s: How long it took, seconds.
        built_unix_s: When.
        contexts: How many callers were asked for, where each needs a profile of its own.
        platform: The machine's kind, such as ``aarch64``.
    """

    engine_bytes: int
    engine_sha256: str
    plan_tensorrt: str | None
    model_file: str
    model_bytes: int
    model_sha256: str
    graph_sha256: str
    head: dict[str, Shape]
    metadata: dict[str, str]
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    profile: dict[str, Range]
    tensorrt: str
    gpu_name: str
    compute_capability: str
    gpu_memory_bytes: int
    driver: str
    cuda: str
    precision: str
    strongly_typed: bool
    builder_flags: tuple[str, ...]
    version_compatible: bool
    hardware_compatible: str
    refittable: bool
    optimization_level: int | None
    own_kernels: bool
    workspace_bytes: int | None
    build_s: float
    built_unix_s: int
    contexts: int = 1
    platform: str = field(default_factory=platform.machine)

    @property
    def tensorrt_version(self) -> tuple[int, ...]:
        """The version, as numbers."""
        return tuple(int(part) for part in self.tensorrt.split("."))

    @property
    def batch(self) -> tuple[int, int, int]:
        """The least, usual and greatest number of images."""
        least, usual, most = self.profile[next(iter(self.inputs))]
        return least[0], usual[0], most[0]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it, digest included."""
        made = {"format": FORMAT, "version": VERSION} | asdict(self)
        rest: dict[str, Any] = json.loads(json.dumps(made))  # tuples become lists
        return rest | {"digest": _digest(rest)}


def compile_command(
    engine: str | os.PathLike[str], model: str | os.PathLike[str] | None = None
) -> str:
    """Return the command that makes an engine again, to be pasted.

    Args:
        engine: The engine's file.
        model: The ONNX file; None where it is not known.
    """
    source = "MODEL" if model is None else shlex.quote(os.fspath(model))
    out = shlex.quote(os.fspath(engine))
    return f"edge-imprint compile {source} --out {out} --force"


def sidecar_path(engine: str | os.PathLike[str]) -> Path:
    """Return where an engine's sidecar lies: ``ENGINE.json``."""
    return Path(f"{os.fspath(engine)}.json")


def write_sidecar(
    engine: str | os.PathLike[str], sidecar: Sidecar, *, force: bool = False
) -> Path:
    """Write what is known of an engine beside it, atomically.

    Args:
        engine: The engine's file.
        sidecar: What is known.
        force: Whether a sidecar that is there may be replaced.

    Returns:
        The sidecar's path.

    Raises:
        OutputExistsError, OutputWriteError: As `write_atomic`.
    """
    text = json.dumps(sidecar.as_json(), indent=1, ensure_ascii=False) + "\n"
    data = text.encode(errors="surrogatepass")  # a file's name may hold bytes that are no text
    return write_atomic(sidecar_path(engine), data, force=force)


def read_sidecar(engine: str | os.PathLike[str]) -> Sidecar:
    """Read what lies beside an engine.

    Args:
        engine: The engine's file, which is not looked at.

    Returns:
        What is known of it.

    Raises:
        EngineFileError: It is missing, damaged, not of our form, or of another version.
    """
    path = sidecar_path(engine)
    if not os.path.isfile(path):
        raise EngineFileError(
            f"there is no file {path}, without which nothing is known of the engine; copy it "
            f"from where the engine was made, or make both: {compile_command(engine)}"
        )
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_SIDECAR_BYTES:
                raise ValueError(f"it has more than {MAX_SIDECAR_BYTES:,} bytes")
            text = file.read(MAX_SIDECAR_BYTES + 1)
        return _parse(text)
    except (OSError, ValueError, RecursionError) as error:
        raise EngineFileError(
            f"{path} can't be read as what edge-imprint wrote beside the engine: {error}; "
            f"make both again: {compile_command(engine)}"
        ) from error


def _parse(text: bytes) -> Sidecar:
    values = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    if type(values) is not dict or values.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    if values.get("version") != VERSION or type(values["version"]) is not int:
        raise ValueError(
            f"it is of version {str(values.get('version'))[:20]}, and this edge-imprint reads "
            f"version {VERSION}"
        )
    digest = values.pop("digest", None)
    if digest != _digest(values):
        raise ValueError("its digest is not that of its content")
    del values["format"], values["version"]
    if values.keys() != _CHECKS.keys():
        wrong = min(values.keys() ^ _CHECKS.keys())
        raise ValueError(f"the field {wrong[:40]!r} is unknown or missing")
    made = {name: check(name, values[name]) for name, check in _CHECKS.items()}
    if made["profile"].keys() != made["inputs"].keys() or not made["inputs"]:
        raise ValueError("the profile is not of its inputs")
    if not made["profile"][next(iter(made["inputs"]))][0]:
        raise ValueError("the profile has no batch")
    return Sidecar(**made)


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


# What each field may be --------------------------------------------------------------------


def _wrong(name: str, value: object) -> ValueError:
    return ValueError(f"the field {name!r} can't be {repr(value)[:60]}")


def _is(kind: type) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if type(value) is not kind:
            raise _wrong(name, value)
        return value

    return check


def _count(least: int = 0) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if type(value) is not int or not least <= value < 2**63:
            raise _wrong(name, value)
        return value

    return check


def _text(pattern: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if type(value) is not str or not re.fullmatch(pattern, value, re.DOTALL):
            raise _wrong(name, value)
        return value

    return check


def _or_none(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else check(name, value)


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 2**63:
        raise _wrong(name, value)
    return float(value)


def _each(check: Callable[[str, Any], Any], limit: int) -> Callable[[str, Any], Any]:
    def checked(name: str, value: Any) -> Any:
        if type(value) is not dict or len(value) > limit:
            raise _wrong(name, value)
        return {key: check(name, item) for key, item in value.items()}

    return checked


def _shape(name: str, value: Any) -> Shape:
    if type(value) is not list or len(value) > _MAX_RANK:
        raise _wrong(name, value)
    return tuple(_count()(name, side) for side in value)


def _declared(name: str, value: Any) -> Value:
    if type(value) is not list or len(value) != 2 or type(value[0]) is not list:
        raise _wrong(name, value)
    shape, kind = value
    if len(shape) > _MAX_RANK or any(
        not (side is None or (type(side) is int and side >= 0) or type(side) is str)
        for side in shape
    ):
        raise _wrong(name, value)
    return tuple(shape), _text(r"tensor\([a-z0-9]{1,20}\)")(name, kind)


def _range(name: str, value: Any) -> Range:
    if type(value) is not list or len(value) != 3:
        raise _wrong(name, value)
    least, usual, most = (_shape(name, shape) for shape in value)
    if not len(least) == len(usual) == len(most) or not all(
        low <= middle <= high for low, middle, high in zip(least, usual, most, strict=True)
    ):
        raise _wrong(name, value)
    return least, usual, most


def _names(name: str, value: Any) -> tuple[str, ...]:
    if type(value) is not list or len(value) > _MAX_NAMES:
        raise _wrong(name, value)
    return tuple(_text("[A-Z0-9_]{1,64}")(name, item) for item in value)


_LINE = _text(rf"[^\x00]{{0,{_MAX_TEXT}}}")
_SHA = _text("[0-9a-f]{64}")
_TENSORRT = _text(r"[0-9]{1,3}(\.[0-9]{1,5}){2,3}")
_FLAG = _is(bool)

_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "engine_bytes": _count(1),
    "engine_sha256": _SHA,
    "plan_tensorrt": _or_none(_TENSORRT),
    "model_file": _text(rf"[^\x00]{{1,{_MAX_TEXT}}}"),
    "model_bytes": _count(1),
    "model_sha256": _SHA,
    "graph_sha256": _SHA,
    "head": _each(_shape, _MAX_NAMES),
    "metadata": _each(_is(str), 1_000),
    "inputs": _each(_declared, _MAX_NAMES),
    "outputs": _each(_declared, _MAX_NAMES),
    "profile": _each(_range, _MAX_NAMES),
    "tensorrt": _TENSORRT,
    "gpu_name": _LINE,
    "compute_capability": _text(r"[0-9]{1,2}\.[0-9]{1,2}"),
    "gpu_memory_bytes": _count(),
    "driver": _LINE,
    "cuda": _LINE,
    "precision": _text("fp32|fp16|int8"),
    "strongly_typed": _FLAG,
    "builder_flags": _names,
    "version_compatible": _FLAG,
    "hardware_compatible": _text(r"none|ampere\+|same_compute_capability"),
    "refittable": _FLAG,
    "optimization_level": _or_none(_count()),
    "own_kernels": _FLAG,
    "workspace_bytes": _or_none(_count()),
    "build_s": _number,
    "built_unix_s": _count(),
    "contexts": _count(1),
    "platform": _LINE,
}
assert list(_CHECKS) == [each.name for each in fields(Sidecar)]
