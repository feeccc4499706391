# SPDX-License-Identifier: Apache-2.0
"""A user's own torch network: ``python:MODULE:FACTORY``.

Imported where one is asked for: torch takes seconds.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from edge_imprint.backbones.names import Name
from edge_imprint.backbones.onnx_files import assumed_preprocess
from edge_imprint.backbones.torch_backbones import Network
from edge_imprint.backbones.weights import load_into
from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.contract.codec import format_preprocess, parse_preprocess
from edge_imprint_runtime.errors import (
    BackboneExportError,
    BackboneNotFoundError,
    ContractValueError,
)

__all__ = ["load"]

_ASSUMED = assumed_preprocess(224, 224)

# Their sources change with their version, and heads would not fit any more.
_NOT_OURS = (
    *("torch", "torchvision", "timm"),
    *("edge_imprint", "edge_imprint_export", "edge_imprint_runtime"),
)
# Where Python's own modules and installed packages lie.
_INSTALLED = {
    sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")
}
_ADDRESS = re.compile(r"0x[0-9a-f]+")
# Modules of users' networks, with their file and its text as it was when it was first seen.
_texts: dict[str, tuple[str, bytes]] = {}


def load(name: Name, *, weights: Path | None, assume: bool) -> Network:
    """Call a factory, and freeze what it makes.

    Args:
        name: ``python:MODULE:FACTORY``; MODULE is looked for in the current folder first.
        weights: Loaded into what the factory makes, where given.
        assume: Whether a preprocessing that the factory does not give is worth a note.

    Returns:
        The network.

    Raises:
        BackboneNotFoundError: There is no such module, or no such function in it.
        BackboneExportError: The module or the factory raises, or it makes no torch module.
        WeightsError: The weights can't be had or don't fit.
    """
    module_name, _, factory_name = name.rest.partition(":")
    if not factory_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise BackboneNotFoundError(
            f"the backbone {name.base!r} must be python:MODULE:FACTORY, such as "
            "python:my_net:make for the function make() of my_net.py"
        )
    with _current_folder():
        module = _import(module_name, name.base)
        made = _call(_factory(module, factory_name, name.base), name.base)
        network, preprocess = _read(made, name.base)
        identity = f"{name.base}\n{_identity(module, network)}"
    source = "own"
    if weights is not None:
        load_into(network, weights, name=name.base)
        source = f"file:{weights.name}"
    note = (
        f"{name.base} does not say how photos are prepared for it; assumed: "
        f"{format_preprocess(_ASSUMED)} (let it return a pair, the module and such a line, or "
        "give another with --preprocess)"
    )
    network = network.eval().requires_grad_(False).float().cpu()
    notes = (note,) if assume and preprocess is None else ()
    return Network(network, source, preprocess or _ASSUMED, identity, notes)


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules of the current folder be found, and keep what they print off stdout."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()  # a module written a moment ago is found
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):  # what was imported may have changed the path
            sys.path.remove(folder)


def _import(module_name: str, base: str) -> ModuleType:
    """Import a module; anew where it, or one that it builds on, has changed meanwhile.

    Their text is part of the digest, so that text and modules must be of one time.
    """
    if any(_text(file) != text for file, text in _texts.values()):
        for key in (*_texts, module_name):  # those that did not change hold parts of the old
            sys.modules.pop(key, None)
        _texts.clear()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise BackboneNotFoundError(
                f"there is no module {error.name!r} for the backbone {base}, neither in the "
                f"folder {os.getcwd()} nor installed; run in the folder where it lies"
            ) from error
        raise BackboneNotFoundError(
            f"the module {module_name!r} of the backbone {base} needs the module "
            f"{error.name!r}, which is not installed here; install it"
        ) from error
    except (Exception, SystemExit) as error:  # a module may do as it likes
        raise _failed(f"the module {module_name!r} of the backbone {base}", error) from error
    _learn(module_name, getattr(module, "__file__", None))
    return module


def _factory(module: ModuleType, factory_name: str, base: str) -> Any:
    found = getattr(module, factory_name, None)
    if found is None:
        callables = [key for key, value in vars(module).items() if callable(value)]
        near = difflib.get_close_matches(factory_name, callables, n=3)
        raise BackboneNotFoundError(
            f"the module {module.__name__!r} has no function {factory_name!r} for the "
            f"backbone {base}"
            + (f"; nearest: {', '.join(near)}" if near else "; name one it has")
        )
    if not callable(found) or isinstance(found, torch.nn.Module):
        raise BackboneExportError(
            f"{factory_name!r} of the backbone {base} is a {type(found).__name__}; it must be "
            "a function that takes nothing and returns a torch module"
        )
    return found


def _call(factory: Any, base: str) -> Any:
    try:
        return factory()
    except (Exception, SystemExit) as error:  # a factory may do as it likes
        raise _failed(f"the factory of the backbone {base}", error) from error


def _read(made: Any, base: str) -> tuple[torch.nn.Module, Preprocess | None]:
    """Take apart what a factory returned: a module, or a module and its preprocessing."""
    network, stated = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if isinstance(stated, str):
        try:
            stated = parse_preprocess(stated)
        except ContractValueError as error:
            raise BackboneExportError(
                f"the factory of the backbone {base} returned a preprocessing that can't be "
                f"read: {error}; it is such as '{format_preprocess(_ASSUMED)}'"
            ) from error
    if not isinstance(network, torch.nn.Module) or not isinstance(
        stated, (Preprocess, type(None))
    ):
        what = f"a {type(made).__name__}"
        if isinstance(made, tuple):
            what = f"a tuple of {', '.join(type(part).__name__ for part in made) or 'nothing'}"
        raise BackboneExportError(
            f"the factory of the backbone {base} returned {what}; it must return a torch "
            "module, or a torch module and its preprocessing"
        )
    return network, stated


def _identity(module: ModuleType, network: torch.nn.Module) -> str:
    """Hash what the weights do not say: the text of the network's modules, and its parts.

    A number that a factory read from elsewhere shows in what its parts say of themselves.
    """
    homes = {type(part).__module__ for part in network.modules()}
    ours = {home for home in homes if home.partition(".")[0] not in _NOT_OURS}
    state = hashlib.sha256(_texts[module.__name__][1])
    ours -= {module.__name__}
    for home in sorted(ours):
        file = getattr(sys.modules.get(home), "__file__", None)
        state.update(_learn(home, file))
    for helper, file in sorted(_helpers(module.__name__, ours).items()):
        state.update(_learn(helper, file))
    state.update(_ADDRESS.sub("", str(network)).encode())
    return state.hexdigest()


def _helpers(module_name: str, homes: set[str]) -> dict[str, str]:
    """Find the modules that others import, by their text: what a user wrote, not installed.

    By the text and not by what is in memory, so that a module is found that is imported late,
    and none that only another caller has imported.

    Args:
        module_name: The factory's module.
        homes: The modules of the network's parts; both are learnt already.

    Returns:
        The file of each further one.
    """
    own = module_name.partition(".")[0]
    found: dict[str, str] = {}
    waiting = [module_name, *(home for home in homes if _own_file(home, own) is not None)]
    while waiting:
        home = waiting.pop()
        file, text = _texts.get(home) or (found[home], _text(found[home]))
        for name in _imported(home, file, text):
            if name == module_name or name in homes or name in found:
                continue
            helper = _own_file(name, own)
            if helper is not None:
                found[name] = helper
                waiting.append(name)
    return found


def _imported(home: str, file: str, text: bytes) -> Iterator[str]:
    """Yield what a module's text imports, each with the packages that it lies in."""
    try:
        tree = ast.parse(text)
    except (ValueError, SyntaxError, RecursionError):  # an extension module
        return
    package = home if Path(file).stem == "__init__" else home.rpartition(".")[0]
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - max(node.level - 1, 0)]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def _own_file(name: str, own: str) -> str | None:
    """Return a module's file where it is not installed, or lies in the package ``own``."""
    top = name.partition(".")[0]
    try:
        spec = None if top in _NOT_OURS else importlib.util.find_spec(top)
        if spec is not None and (top == own or not _is_installed(spec.origin)):
            spec = importlib.util.find_spec(name)  # imports the packages that it lies in
            if spec is not None and spec.has_location and spec.origin:
                return None if top != own and _is_installed(spec.origin) else spec.origin
    except Exception:  # no package, or one that fails: who needs it says so
        pass
    return None


def _is_installed(file: str | None) -> bool:
    """Whether it is of Python or of a package; None stands for a folder without a file."""
    return file is not None and (
        not os.path.isabs(file) or any(file.startswith(f"{one}{os.sep}") for one in _INSTALLED)
    )


def _learn(name: str, file: str | None) -> bytes:
    """Return a module's text as it was when it was first seen."""
    return _texts.setdefault(name, (file or "", _text(file)))[1]


def _text(file: str | None) -> bytes:
    try:
        return Path(file).read_bytes() if file else b""
    except OSError:
        return b""


def _failed(what: str, error: BaseException) -> BackboneExportError:
    text = " ".join(str(error).split())[:300]
    return BackboneExportError(
        f"{what} raised {type(error).__name__}" + (f": {text}" if text else "") + "; mend it"
    )
