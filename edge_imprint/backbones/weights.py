# SPDX-License-Identifier: Apache-2.0
"""Weights files: safetensors and torch checkpoints, in the dresses that trainings give them.

A checkpoint is read as tensors only: one that brings code is refused, and its code never
runs. Which part of a file belongs to a network is found by the network's own names, so that
any prefix will do as long as it is one.

Imported where a torch backbone is loaded: torch takes seconds.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edge_imprint_runtime.errors import EdgeImprintError, WeightsError

if TYPE_CHECKING:
    from edge_imprint.backbones.listing import Entry

__all__ = ["load_into", "read_again", "read_weights"]

# Where checkpoints keep their network, what trainings themselves would take first: averaged
# weights before the last step's, a teacher's before a student's.
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "teacher")
_USUAL_PREFIX = re.compile(r"(?:(?:module|model|backbone)\.)*")
_COMPILED = "_orig_mod."  # torch.compile's, before the name or in its middle
# Which photos a training has seen; not used once it is over, and not in old checkpoints.
_COUNTER = "num_batches_tracked"
_STATISTICS = ("running_mean", "running_var", _COUNTER)
# Names that torchvision's published files still have, and its networks had once: what the
# networks have now, the old name, the new one.
_OLD_NAMES = (
    ("denselayer", re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    ("encoder_layer_0.mlp.0.", re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    ("encoder_layer_0.mlp.3.", re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
_MOST_CLASSES = 22_000
_MOST_TRIED = 24
_MOST_NAMED = 3
_LEAST_BLOCK = 4  # tensors: two layers


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Read the named tensors of a weights file.

    Args:
        file: A safetensors file, or a torch checkpoint; told by its content, not its name.

    Returns:
        Its tensors on the CPU by name; of a checkpoint's parts the network's.

    Raises:
        WeightsError: It is missing or damaged, brings code, or holds no named tensors.
    """
    if os.path.isdir(file):
        raise WeightsError(f"the weights {file} are a folder; name the file in it")
    if not os.path.isfile(file):
        raise WeightsError(f"there is no weights file {file}")
    try:
        content = _read(file)
    except Exception as error:  # torch, pickle and safetensors each raise their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason = reason.partition("  (")[0][:200]  # torch asks to have its messages improved
        if "weights_only" in str(error):  # torch advises to run what the file brings
            brings = "unsupported global" in str(error).lower()
            reason = "it brings code" if brings else "it is damaged, or no checkpoint"
        raise WeightsError(
            f"cannot read the weights {file}: {reason}; give a safetensors file or a "
            "checkpoint that holds tensors only"
        ) from error
    while isinstance(content, dict):
        inner = [content[key] for key in _NESTED if isinstance(content.get(key), dict)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, dict):
        raise WeightsError(f"the weights {file} hold no named tensors")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise WeightsError(f"the weights {file} hold no named tensors")
    plain = {key: value for key, value in tensors.items() if _COMPILED not in key}
    compiled = {k.replace(_COMPILED, ""): v for k, v in tensors.items() if _COMPILED in k}
    return {**compiled, **plain}


def load_into(module: torch.nn.Module, file: Path, *, name: str) -> None:
    """Load a weights file into a network without a classifier.

    What the file holds beside the network's tensors (its classifier) is left out.

    Args:
        module: The network; its tensors are overwritten.
        file: As in `read_weights`.
        name: The backbone's name, for messages.

    Raises:
        WeightsError: The file can't be read, lacks a tensor, holds one of another shape, or is
            a deeper network's; the message names backbones that the weights do fit, where
            shapes tell.
    """
    state = module.state_dict()  # with the versions of its layers, which some ask for
    tensors = _fitted(file, module)
    reason = _misfit(tensors, state)
    if reason:
        fitting = _fitting(read_weights(file))
        advice = (
            f"they fit {', '.join(fitting)}"
            if fitting
            else "name the backbone that they belong to"
        )
        raise WeightsError(f"the weights {file} don't fit {name}: {reason}; {advice}")
    further = "" if name.startswith("python:") else _further(tensors, state)
    if further:  # a deeper network holds all of a shallower one's names and shapes
        fitting = _fitting(read_weights(file))
        raise WeightsError(
            f"the weights {file} are of a deeper network than {name}: they have {further}, "
            "too; "
            + (
                f"they fit {', '.join(fitting)}"
                if fitting
                else "name the backbone they are of"
            )
        )
    for key in state:
        state[key] = tensors.get(key, state[key])
    module.load_state_dict(state)


def read_again(file: Path, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Read a weights file that a network was loaded with, for what stands beside it.

    Args:
        file: What `load_into` was given.
        module: The network as it was then.

    Returns:
        All tensors of the file, by the network's own names; its classifier among them.

    Raises:
        WeightsError: The file is no longer the one that was loaded.
    """
    state, tensors = module.state_dict(), _fitted(file, module)
    for key, value in state.items():
        if key.endswith(_COUNTER):
            continue
        if key not in tensors or not torch.equal(tensors[key].to(value.dtype), value):
            raise WeightsError(
                f"the weights {file} are no longer those that the backbone was loaded with; "
                "load it again"
            )
    return tensors


def _read(file: Path) -> Any:
    with open(file, "rb") as opened:
        begin = opened.read(9)
    # A header's length, then its first brace; torch's own begin as a zip or as a pickle.
    if file.suffix == ".safetensors" or begin[8:] == b"{":
        from safetensors.torch import load_file

        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _fitted(file: Path, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Read a file's tensors under the network's own names, as far as they are known.

    What does not fit as it is gets timm's conversion of that network's published weights: for
    other names of the same layers, and for positions of another image size.
    """
    state = module.state_dict()
    tensors = _undressed(read_weights(file), state, file)
    home = sys.modules.get(type(module).__module__)
    convert: Any = getattr(home, "checkpoint_filter_fn", None)
    if convert is None or not _misfit(tensors, state):
        return tensors
    try:
        converted = dict(convert(dict(tensors), module))
    except Exception:  # it expects its own network's weights, and these may be any
        return tensors
    return tensors if _misfit(converted, state) else converted


def _misfit(tensors: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> str:
    """Say what is missing of a network, or has another shape; empty where nothing is."""
    needed = [key for key in state if not key.endswith(_COUNTER)]
    missing = sorted(key for key in needed if key not in tensors)
    if missing:
        return f"{len(missing)} of {len(needed)} tensors are missing, such as {missing[0]}"
    for key in needed:
        if tensors[key].shape != state[key].shape:
            return (
                f"{key} has shape {tuple(tensors[key].shape)}, the backbone wants "
                f"{tuple(state[key].shape)}"
            )
    return ""


def _further(tensors: Iterable[str], state: Iterable[str]) -> str:
    """Name a block in a file that the network lacks, though it has others of the same form.

    A classifier's layers are no such blocks: they hold a weight and a bias.
    """
    there, own = _blocks(tensors), _blocks(state)
    forms = {(home, frozenset(parts)) for (home, _), parts in own.items()}
    for (home, number), parts in sorted(there.items()):
        small = len(parts) < _LEAST_BLOCK
        if (home, number) not in own and not small and (home, frozenset(parts)) in forms:
            return f"{home}.{number}"
    return ""


def _blocks(names: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """Return what stands below each numbered part of the names: (home, number) -> rests."""
    found: dict[tuple[str, str], set[str]] = {}
    for name in names:
        parts = name.split(".")
        for place, part in enumerate(parts[:-1]):
            if part.isdecimal() and place and not name.endswith(_COUNTER):
                key = ".".join(parts[:place]), part
                found.setdefault(key, set()).add(".".join(parts[place + 1 :]))
    return found


def _undressed(
    tensors: Mapping[str, torch.Tensor], wanted: Collection[str], file: Path
) -> dict[str, torch.Tensor]:
    """Take off the prefix under which a file holds the wanted names."""
    for now, old, new in _OLD_NAMES:
        if any(now in key for key in wanted):
            tensors = {old.sub(new, key): value for key, value in tensors.items()}
    prefix = _prefix(tensors, wanted, file)
    rest = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    own = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    return {**rest, **own}


def _prefix(names: Iterable[str], wanted: Collection[str], file: Path) -> str:
    """Return the prefix under which most of the wanted names stand: all of them, mostly.

    Raises:
        WeightsError: Several networks fit, and none is under a prefix that is usual.
    """
    best, whole = _prefixes(names, wanted)
    usual = [prefix for prefix in best if _USUAL_PREFIX.fullmatch(prefix)]
    if whole and len(best) > 1 and not usual:
        raise WeightsError(
            f"the weights {file} hold {len(best)} networks that fit, under "
            f"{', '.join(best[:_MOST_NAMED])}; save one of them alone"
        )
    return (usual or best)[0]


def _prefixes(names: Iterable[str], wanted: Collection[str]) -> tuple[list[str], bool]:
    """Return the prefixes of most wanted names, shortest first; whether it is all of them."""
    needed = {key for key in wanted if not key.endswith(_COUNTER)}
    hits: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for begin in range(len(parts)):
            if ".".join(parts[begin:]) in needed:
                hits["".join(f"{part}." for part in parts[:begin])] += 1
    most = max(hits.values(), default=0)
    best = sorted((prefix for prefix in hits if hits[prefix] == most), key=len)
    return best or [""], most == len(needed)


def _fitting(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Name up to three backbones whose tensors are these, a linear classifier aside."""
    from edge_imprint.backbones import listing, measure

    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    count = sum(
        value.numel()
        for key, value in tensors.items()
        if value.is_floating_point() and value.ndim and not key.endswith(_STATISTICS)
    )
    near = [entry for entry in listing.shipped().entries if _may_be(entry, count)]
    near.sort(key=lambda entry: (count - entry.parameters, entry.name))
    found: list[str] = []
    for entry in near[:_MOST_TRIED]:
        try:
            own = measure.tensor_shapes(entry.name)
        except EdgeImprintError:  # of another version of its library
            continue
        prefix = _prefixes(shapes, own)[0][0]
        needed = {f"{prefix}{k}": v for k, v in own.items() if not k.endswith(_COUNTER)}
        if needed.items() <= shapes.items():
            found.append(entry.name)
    return found[:_MOST_NAMED]


def _may_be(entry: Entry, count: int) -> bool:
    """Tell whether a backbone with a linear classifier has so many parameters."""
    rest, size = count - entry.parameters, entry.embedding_size
    if rest == 0:
        return True
    if rest < 0 or not size or rest > (size + 1) * _MOST_CLASSES:
        return False
    return rest % (size + 1) == 0 or rest % size == 0
