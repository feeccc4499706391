# SPDX-License-Identifier: Apache-2.0
"""The contract's types: immutable, and valid once they exist."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, fields

from edge_imprint_runtime.errors import ContractValueError, ParameterError

__all__ = [
    "EPSILON",
    "HEAD_PRECISIONS",
    "MAX_LABELS",
    "MAX_LABEL_BYTES",
    "MAX_SIDE_PIXELS",
    "MAX_TEMPERATURE",
    "MAX_TEXT_BYTES",
    "MIN_TEMPERATURE",
    "PRECISIONS",
    "SHARE_TIE",
    "UNKNOWN",
    "VERSION",
    "BackboneInfo",
    "Contract",
    "Frame",
    "GraphInfo",
    "Preprocess",
    "Rule",
    "Teachable",
    "check_choice",
    "check_labels",
]

VERSION = 1
MAX_LABELS = 65_536
MAX_LABEL_BYTES = 1_024
MAX_TEXT_BYTES = 4_096
MAX_SIDE_PIXELS = 8_192
MAX_EMBEDDING_SIZE = 65_536
MAX_SLOTS = 1_048_576

# The smallest divisor of an L2 norm: a zero embedding stays zero instead of becoming NaN.
EPSILON = 1e-12

# Shares of votes this near are equal: as sums in float32 they differ in the last digit.
SHARE_TIE = 1e-6
# What stands for a class where none is known; no class of a calibrated head bears it.
UNKNOWN = "unknown"
# Beyond these float32 can't hold scores / temperature, and no real head comes near.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-12, 1e12

PRECISIONS = ("fp32", "fp16", "int8")
HEAD_PRECISIONS = (*PRECISIONS, "exact")

_RULE_VALUES = {
    "embedding_norm": ("none", "l2"),
    "aggregation": ("max", "mnn"),
    "distance": ("inner_product", "cosine", "euclidean", "manhattan", "mahalanobis"),
    "weighting": ("uniform", "distance"),
}


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Check one option against its values.

    Args:
        name: The option, as the user wrote it.
        value: Its value.
        allowed: Its values.

    Raises:
        ParameterError: The value is none of them.
    """
    if value not in allowed:
        raise ParameterError(f"{name} must be {_one_of(allowed)}, got {value!r}")


def _one_of(values: tuple[str, ...]) -> str:
    return " or ".join(repr(value) for value in values)


@dataclass(frozen=True)
class Rule:
    """How an embedding becomes scores: the inference half of IMPRINT (arXiv 2503.14572, 3).

    Attributes:
        embedding_norm: ``none`` or ``l2``: what is done to an embedding before it is compared.
        aggregation: ``max``: the score of a class is that of its nearest proxy; ``mnn``: its
            share of the votes of the m nearest proxies.
        distance: ``inner_product``, ``cosine``, ``euclidean``, ``manhattan`` or
            ``mahalanobis`` (euclidean after the head's ``metric``).
        neighbors: m, how many proxies vote under ``mnn``; 1 under ``max``.
        weighting: ``uniform`` or, under ``mnn``, ``distance``: a nearer proxy's vote counts
            more.

    Raises:
        ParameterError: A value is outside the interface, or two contradict each other.
    """

    embedding_norm: str = "l2"
    aggregation: str = "max"
    distance: str = "inner_product"
    neighbors: int = 1
    weighting: str = "uniform"

    def __post_init__(self) -> None:
        for name, values in _RULE_VALUES.items():
            check_choice(name, getattr(self, name), values)
        if type(self.neighbors) is not int or self.neighbors < 1:
            raise ParameterError(f"neighbors must be an integer >= 1, got {self.neighbors!r}")
        if self.aggregation == "max":
            for name, only in (("neighbors", 1), ("weighting", "uniform")):
                if getattr(self, name) != only:
                    raise ParameterError(
                        f"{name} must be {only!r} under aggregation='max', "
                        f"got {getattr(self, name)!r}; use aggregation='mnn'"
                    )
        if self.weighting == "distance" and self.distance == "inner_product":
            raise ParameterError(
                "weighting='distance' needs a distance, and an inner product is none; "
                "use distance='cosine'"
            )


@dataclass(frozen=True)
class Preprocess:
    """From a photo to the network's input; the steps of timm's evaluation transform.

    A photo (RGB, upright) is resized to a box, cut to the network's size about its centre,
    divided by 255, and normalised by ``(pixel - mean) / std``. The first two happen on the
    photo (8 bits), the last two in the graph where its input is uint8.

    Attributes:
        height: Height of the network's input, pixels.
        width: Its width, pixels.
        resize: ``crop`` (the photo covers the box, aspect kept), ``stretch`` (it becomes the
            box) or ``pad`` (it fits into the box, aspect kept, the rest is the mean colour).
        resize_height: Height of the box, pixels.
        resize_width: Its width, pixels.
        interpolation: ``nearest``, ``bilinear``, ``bicubic``, ``lanczos``, ``box`` or
            ``hamming``, antialiased as Pillow does it; or ``linear``, not antialiased, which
            alone a graph can do for frames of any size.
        mean: Mean of each channel (R, G, B), in 0..1.
        std: Standard deviation of each channel, > 0.

    Raises:
        ContractValueError: A value is out of range.
    """

    height: int
    width: int
    resize: str = "stretch"
    resize_height: int = 0
    resize_width: int = 0
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        # A box not given is the network's size: resize, cut nothing.
        object.__setattr__(self, "resize_height", self.resize_height or self.height)
        object.__setattr__(self, "resize_width", self.resize_width or self.width)
        for name in ("height", "width", "resize_height", "resize_width"):
            _check_count(f"preprocess {name}", getattr(self, name), MAX_SIDE_PIXELS)
        _check_in("preprocess resize", self.resize, ("crop", "stretch", "pad"))
        _check_in(
            "preprocess interpolation",
            self.interpolation,
            ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "linear"),
        )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ContractValueError(
                    f"preprocess {name} must be three finite numbers, got {values}"
                )
        if min(self.std) <= 0:
            raise ContractValueError(f"preprocess std must be above zero, got {self.std}")


@dataclass(frozen=True)
class BackboneInfo:
    """Which frozen network made the embeddings.

    Attributes:
        name: As the user named it, such as ``timm/resnet18``.
        weights: ``pretrained``, ``packaged`` (with edge-imprint), ``own`` (in the ONNX
            file), ``random:SEED`` or ``file:NAME``.
        digest: SHA-256 over the network's name, structure and weights, 64 hex digits.
        preprocess: From a photo to its input.

    Raises:
        ContractValueError: A value is empty, too long or malformed.
    """

    name: str
    weights: str
    digest: str
    preprocess: Preprocess

    def __post_init__(self) -> None:
        _check_text("backbone", self.name)
        _check_text("backbone_weights", self.weights)
        if not re.fullmatch("[0-9a-f]{64}", self.digest):
            raise ContractValueError(
                f"backbone_digest must be 64 hexadecimal digits, got {self.digest[:80]!r}"
            )


@dataclass(frozen=True)
class Frame:
    """What a camera delivers: uint8, a frame after the other.

    Attributes:
        format: ``rgb`` or ``bgr`` (N, height, width, 3); ``nv12`` (N, 3 * height / 2, width),
            the plane of Y above that of U and V in turns; ``yuyv`` (N, height, width, 2).
        height: Pixels; 0 with a width of 0: any size (``rgb`` and ``bgr``).
        width: Pixels.
        matrix: ``bt601`` or ``bt709``: what Y, U and V mean (``nv12`` and ``yuyv``).
        levels: ``limited`` (Y in 16..235) or ``full`` (0..255).

    Raises:
        ContractValueError: A value is out of range, or two contradict each other.
    """

    format: str
    height: int = 0
    width: int = 0
    matrix: str = "bt601"
    levels: str = "limited"

    def __post_init__(self) -> None:
        _check_in("frame format", self.format, ("rgb", "bgr", "nv12", "yuyv"))
        _check_in("frame matrix", self.matrix, ("bt601", "bt709"))
        _check_in("frame levels", self.levels, ("limited", "full"))
        if not self.is_yuv and (self.matrix, self.levels) != ("bt601", "limited"):
            raise ContractValueError(
                f"frames of format {self.format!r} have neither matrix nor levels"
            )
        if self.any_size and not self.is_yuv:
            return
        for name in ("height", "width"):
            _check_count(f"frame {name}", getattr(self, name), MAX_SIDE_PIXELS)
        odd = self.width % 2 or (self.format == "nv12" and self.height % 2)
        if self.is_yuv and odd:
            raise ContractValueError(
                f"a frame of format {self.format!r} has pixels in pairs, "
                f"got {self.height}x{self.width}"
            )

    @property
    def any_size(self) -> bool:
        """Whether each frame may have a size of its own."""
        return (self.height, self.width) == (0, 0)

    @property
    def is_yuv(self) -> bool:
        """Whether its numbers are Y, U and V."""
        return self.format in ("nv12", "yuyv")


@dataclass(frozen=True)
class Teachable:
    """How a model takes other proxies at run time.

    Attributes:
        form: ``default``: the proxies are in the file and can be replaced (ONNX Runtime);
            ``input``: they are an input, and lie in the head file beside (TensorRT).
        max_classes: How many classes it may come to know.
        taught_proxies: How many proxies teaching may add to a class.

    Raises:
        ContractValueError: A value is out of range.
    """

    form: str = "default"
    max_classes: int = 256
    taught_proxies: int = 5

    def __post_init__(self) -> None:
        _check_in("teachable form", self.form, ("default", "input"))
        _check_count("teachable max_classes", self.max_classes, MAX_LABELS)
        _check_count("teachable taught_proxies", self.taught_proxies, MAX_SLOTS)


@dataclass(frozen=True)
class GraphInfo:
    """What only a model file knows, beside its head.

    Attributes:
        input: ``uint8`` (N, H, W, 3 RGB), ``float32`` (N, 3, H, W RGB, normalised),
            ``embedding`` (N, D float32, a model without backbone) or ``frame``.
        slots: Proxies of the class that has most, in a teachable model with those that may
            be taught.
        precision: Of the backbone: ``fp32``, ``fp16`` or ``int8``.
        head_precision: Of the product with the proxies: ``fp32``, ``fp16``, ``int8``, or
            ``exact``: int8, and the best classes once more in float32.
        target: What it was exported for, such as ``portable`` or ``jetpack-6.2``.
        frame: What the camera delivers; there if ``input`` is ``frame``, and only then.
        teachable: How it takes other proxies; None where it does not.

    Raises:
        ContractValueError: A value is out of range.
    """

    input: str
    slots: int
    precision: str = "fp32"
    head_precision: str = "fp32"
    target: str = "portable"
    frame: Frame | None = None
    teachable: Teachable | None = None

    def __post_init__(self) -> None:
        _check_in("input", self.input, ("uint8", "float32", "embedding", "frame"))
        _check_count("slots", self.slots, MAX_SLOTS)
        _check_in("precision", self.precision, PRECISIONS)
        _check_in("head_precision", self.head_precision, HEAD_PRECISIONS)
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", self.target):
            raise ContractValueError(
                f"target must be a name such as 'portable', got {self.target[:80]!r}"
            )
        if (self.frame is not None) != (self.input == "frame"):
            raise ContractValueError(
                f"input {self.input!r} goes with {'a' if self.frame is None else 'no'} frame"
            )
        if self.teachable is not None and self.head_precision != "fp32":
            raise ContractValueError(
                "the proxies of a teachable model are fp32, "
                f"got head_precision {self.head_precision!r}"
            )


@dataclass(frozen=True)
class Contract:
    """All that a device must know beside the numbers.

    Attributes:
        labels: One name a class, unique, in class order.
        rule: How an embedding becomes scores.
        embedding_size: Length D of an embedding.
        recipe: How the proxies were made, one line, such as ``l2 kmeans:20 l2 l2 max``.
        backbone: What made the embeddings; None in a head made from bare embeddings.
        graph: What only a model knows; None in a head file.
        temperature: What scores are divided by before they become probabilities; None in
            what is not calibrated.
        notes: (name, text) of what is merely informative, sorted: where it comes from, how
            it was proved. No reader depends on one.

    Raises:
        ContractValueError: A value is out of range.
    """

    labels: tuple[str, ...]
    rule: Rule
    embedding_size: int
    recipe: str
    backbone: BackboneInfo | None = None
    graph: GraphInfo | None = None
    temperature: float | None = None
    notes: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_labels(self.labels)
        _check_count("embedding_size", self.embedding_size, MAX_EMBEDDING_SIZE)
        _check_text("recipe", self.recipe)
        if self.temperature is not None:
            self._check_calibration(self.temperature)

    def _check_calibration(self, temperature: object) -> None:
        if (
            not isinstance(temperature, float)
            or not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE
        ):
            raise ContractValueError(
                f"temperature must be a number from {MIN_TEMPERATURE:g} to "
                f"{MAX_TEMPERATURE:g}, got {temperature!r}"
            )
        if UNKNOWN in self.labels:
            raise ContractValueError(
                f"no class of a calibrated head may be named {UNKNOWN!r}, "
                "its answer where it knows none; rename the class"
            )


def check_labels(labels: tuple[str, ...]) -> None:
    """Check class names.

    Args:
        labels: One name a class.

    Raises:
        ContractValueError: None, too many, a name that is empty, too long, twice there or
            not text.
    """
    if not 1 <= len(labels) <= MAX_LABELS:
        raise ContractValueError(f"there must be 1 to {MAX_LABELS} labels, got {len(labels)}")
    for label in labels:
        if not isinstance(label, str):
            raise ContractValueError(f"a label must be text, got {label!r}")
        _check_text(f"label {label[:80]!r}", label, MAX_LABEL_BYTES)
    if len(set(labels)) != len(labels):
        twice = Counter(labels).most_common(1)[0][0]
        raise ContractValueError(f"labels must be unique, but {twice!r} is there twice")


def _check_text(name: str, value: str, limit: int = MAX_TEXT_BYTES) -> None:
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError as error:  # a file name that is not UTF-8
        raise ContractValueError(f"{name} is not valid Unicode text; rename it") from error
    if not 1 <= size_bytes <= limit or "\0" in value:
        raise ContractValueError(
            f"{name} must be 1 to {limit} bytes of text without NUL, got {size_bytes} bytes"
        )


def _check_count(name: str, value: object, limit: int) -> None:
    if type(value) is not int or not 1 <= value <= limit:
        raise ContractValueError(f"{name} must be an integer from 1 to {limit}, got {value!r}")


def _check_in(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ContractValueError(f"{name} must be {_one_of(allowed)}, got {value[:80]!r}")


def rule_fields() -> tuple[str, ...]:
    """Return the names of `Rule`'s fields, in the order in which they are written."""
    return tuple(field.name for field in fields(Rule))
