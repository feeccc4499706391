# SPDX-License-Identifier: Apache-2.0
"""The recipe: every choice of imprinting, as one line that prints and parses back.

::

    PRE      GENERATION  POST  INFERENCE  AGGREGATION      options follow a colon
    l2       kmeans:20   l2    l2         max              IMPRINT (arXiv 2503.14572)
    whiten   kmeans:20   l2    l2         max:cosine       whiten:auto, whiten:0.1:size=64
    none     mean        none  none       mnn:1:euclidean
"""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from edge_imprint_runtime.contract import Rule
from edge_imprint_runtime.contract.spec import check_choice
from edge_imprint_runtime.errors import ParameterError

__all__ = ["GENERATIONS", "PRESETS", "Recipe", "check_seed", "check_shots"]

GENERATIONS = (
    "mean",
    "kmeans",
    "kmedoids",
    "random",
    "all",
    "fps",
    "cov_max",
    "least_squares",
)
# Those that make k proxies a class.
_WITH_K = tuple(name for name in GENERATIONS if name not in ("mean", "all"))
_NORMS = {
    "pre_norm": ("none", "l2", "whiten"),
    "post_norm": ("none", "l2", "quantile"),
    "inference_norm": ("none", "l2"),
}

# Where a class's similarity depends on that class's k alone.
_SEPARATE = (("max", "none"), ("max", "l2"))
_MAX_LENGTH = 1_000

# By their names in the literature.
PRESETS = {
    "qi2018": "l2 mean l2 l2 max",
    "hosoda2024": "none mean quantile none max",
    "janson2022": "none mean none none mnn:1:euclidean",
    "imprint": "l2 kmeans:20 l2 l2 max",
    "whitened": "whiten:auto kmeans:20 l2 l2 max",
    "least-squares": "none least_squares:1 none none max",
}


@dataclass(frozen=True)
class Recipe:
    """How proxies are made and compared. Valid once it exists.

    Attributes:
        pre_norm: What is done to the training embeddings: ``none``, ``l2``, or ``whiten``
            (centred, whitened by the pooled within-class covariance, then L2; the embeddings
            to classify go the same way).
        generation: One of `GENERATIONS`.
        proxies: Proxies a class (k), or ``auto``: for each class what held-out embeddings say.
        post_norm: What is done to the proxies: ``none``, ``l2`` or ``quantile``.
        inference_norm: What is done to an embedding to classify: ``none`` or ``l2``.
        aggregation: ``max`` or ``mnn`` (votes of the nearest proxies).
        distance: As in `Rule`.
        neighbors: Proxies that vote under ``mnn``.
        weighting: ``uniform`` or ``distance``: what a vote counts.
        whiten_shrinkage: How little whitening trusts the covariance, above 0 (fully) to 1 (it
            is as if not whitened); None for Ledoit's and Wolf's estimate, ``auto`` for what
            held-out embeddings say (see `edge_imprint.imprinting.shrinkage`).
        whiten_size: Directions that whitening keeps, at most; None for its own choice.
        ridge: Least squares' lambda, as a share of the scatter's mean diagonal; above 0.
        balanced: Whether each class counts the same in least squares, however many samples it
            has.

    Raises:
        ParameterError: A value is outside its range, or contradicts another.
    """

    pre_norm: str = "l2"
    generation: str = "kmeans"
    proxies: int | str = 20
    post_norm: str = "l2"
    inference_norm: str = "l2"
    aggregation: str = "max"
    distance: str = "inner_product"
    neighbors: int = 1
    weighting: str = "uniform"
    whiten_shrinkage: float | str | None = None
    whiten_size: int | None = None
    ridge: float = 0.01
    balanced: bool = False

    def __post_init__(self) -> None:
        check_choice("generation", self.generation, GENERATIONS)
        for name, allowed in _NORMS.items():
            check_choice(name, getattr(self, name), allowed)
        if self.proxies != "auto" and not _is_whole(self.proxies, 1):
            raise ParameterError(
                f"proxies must be an integer >= 1 or 'auto', got {self.proxies!r}"
            )
        if self.proxies == "auto" and self.generation != "kmeans":
            raise ParameterError(
                f"proxies='auto' chooses k for generation='kmeans', not for "
                f"{self.generation!r}; give a number"
            )
        self._check_whitening()
        if not _is_number(self.ridge) or not 0 < self.ridge <= sys.float_info.max:
            raise ParameterError(f"ridge must be a number above 0, got {self.ridge!r}")
        if not isinstance(self.balanced, (bool, np.bool_)):
            raise ParameterError(f"balanced must be True or False, got {self.balanced!r}")
        _ = self.rule  # checks the rest
        if self.proxies == "auto" and (self.aggregation, self.post_norm) not in _SEPARATE:
            raise ParameterError(
                "k can be chosen class by class under aggregation='max' and post_norm 'none' "
                f"or 'l2', not in the recipe '{self}'; give a number of proxies"
            )

    def _check_whitening(self) -> None:
        share, size = self.whiten_shrinkage, self.whiten_size
        inside = _is_number(share) and 0 < share <= 1  # type: ignore[operator]
        if not (share is None or share == "auto" or inside):
            raise ParameterError(
                f"whiten_shrinkage must be None, 'auto' or a number above 0 up to 1, "
                f"got {share!r}"
            )
        if size is not None and not _is_whole(size, 1):
            raise ParameterError(f"whiten_size must be None or an integer >= 1, got {size!r}")
        for name, value in (("whiten_shrinkage", share), ("whiten_size", size)):
            if value is not None and self.pre_norm != "whiten":
                raise ParameterError(
                    f"{name}={value!r} needs pre_norm='whiten', got {self.pre_norm!r}"
                )

    @property
    def rule(self) -> Rule:
        """The inference half, which a head carries."""
        return Rule(
            self.inference_norm,
            self.aggregation,
            self.distance,
            int(self.neighbors) if _is_whole(self.neighbors, 1) else self.neighbors,
            self.weighting,
        )

    @property
    def k(self) -> int:
        """Proxies a class; 1 for the mean."""
        return int(self.proxies) if self.generation in _WITH_K else 1

    @property
    def makes_k(self) -> bool:
        """Whether the generation makes k proxies a class."""
        return self.generation in _WITH_K

    def __str__(self) -> str:
        pre = self.pre_norm
        if self.whiten_shrinkage is not None:
            pre += f":{self.whiten_shrinkage}"
        if self.whiten_size is not None:
            pre += f":size={self.whiten_size}"
        made = f"{self.generation}:{self.proxies}" if self.makes_k else self.generation
        if self.generation == "least_squares":
            made += "" if self.ridge == _DEFAULTS["ridge"] else f":ridge={float(self.ridge)}"
            made += ":balanced" if self.balanced else ""
        compared = self.aggregation
        if self.aggregation == "mnn":
            compared += f":{self.neighbors}"
        if self.distance != "inner_product":
            compared += f":{self.distance}"
        if self.weighting == "distance":
            compared += ":distance"
        return f"{pre} {made} {self.post_norm} {self.inference_norm} {compared}"

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read a recipe.

        Args:
            text: A line, as `str` writes it, or the name of one of `PRESETS`.

        Returns:
            The recipe.

        Raises:
            ParameterError: The line is malformed; the message says where.
        """
        words = PRESETS.get(text, text).split()
        near = difflib.get_close_matches(text[:40], PRESETS, n=1) if len(words) == 1 else []
        if len(words) != 5 or len(text) > _MAX_LENGTH:
            raise ParameterError(
                f"a recipe is a preset ({', '.join(PRESETS)}) or five words such as "
                f"{PRESETS['imprint']!r}, got {text[:200]!r}"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        values: dict[str, Any] = {"post_norm": words[2], "inference_norm": words[3]}
        values |= _parse_pre_norm(words[0])
        values |= _parse_generation(words[1])
        values |= _parse_aggregation(words[4])
        return cls(**values)

    def with_proxies(self, proxies: int | str) -> Recipe:
        """Return the same recipe with another k."""
        return replace(self, proxies=proxies)


def check_seed(seed: object) -> None:
    """Refuse a seed that is no integer >= 0.

    Raises:
        ParameterError: It is not.
    """
    if not _is_whole(seed, 0):
        raise ParameterError(f"random_state must be an integer >= 0, got {seed!r}")


def check_shots(shots: object) -> None:
    """Refuse shots that are neither None nor an integer >= 1.

    Raises:
        ParameterError: They are not.
    """
    if shots is not None and not _is_whole(shots, 1):
        raise ParameterError(f"shots must be None or an integer >= 1, got {shots!r}")


def _parse_pre_norm(word: str) -> dict[str, Any]:
    name, *options = word.split(":")
    check_choice("pre_norm", name, _NORMS["pre_norm"])
    values: dict[str, Any] = {"pre_norm": name}
    for option in options:
        if option.startswith("size=") and "whiten_size" not in values:
            values["whiten_size"] = _number(word, [option[5:]])
        elif (option == "auto" or _is_decimal(option)) and "whiten_shrinkage" not in values:
            values["whiten_shrinkage"] = option if option == "auto" else float(option)
        else:
            raise ParameterError(
                f"the recipe's word {word!r} has the unknown option {option!r}"
            )
    return values


def _parse_generation(word: str) -> dict[str, Any]:
    name, *options = word.split(":")
    check_choice("generation", name, GENERATIONS)
    values: dict[str, Any] = {"generation": name}
    if name == "least_squares":
        values["proxies"] = 1
    if options and name in _WITH_K and "=" not in options[0] and options[0] != "balanced":
        first = options.pop(0)
        values["proxies"] = "auto" if first == "auto" else _number(word, [first])
    for option in options:
        key, _, value = option.partition("=")
        if name == "least_squares" and key == "ridge" and _is_decimal(value):
            values["ridge"] = float(value)
        elif name == "least_squares" and option == "balanced":
            values["balanced"] = True
        else:
            raise ParameterError(
                f"the recipe's word {word!r} has the unknown option {option!r}"
            )
    return values


def _parse_aggregation(word: str) -> dict[str, Any]:
    name, *options = word.split(":")
    values: dict[str, Any] = {"aggregation": name}
    if name == "mnn":
        if not options:
            raise ParameterError(
                f"the recipe's word {word!r} lacks the number of neighbours, such as mnn:5"
            )
        values["neighbors"] = _number(word, [options.pop(0)])
    if options and options[0] != "distance":
        values["distance"] = options.pop(0)
    if options and options[0] == "distance":
        values["weighting"] = options.pop(0)
    if options:
        raise ParameterError(
            f"the recipe's word {word!r} has the unknown option {options[0]!r}"
        )
    return values


def _number(word: str, texts: list[str]) -> int:
    if len(texts) != 1 or not re.fullmatch("[0-9]{1,9}", texts[0]):
        raise ParameterError(
            f"the recipe's word {word!r} must have one whole number after its colon"
        )
    return int(texts[0])


def _is_decimal(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?(e[-+]?[0-9]{1,3})?", text) is not None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: object, least: int) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and int(value) >= least  # type: ignore[call-overload]


_DEFAULTS = {field.name: field.default for field in fields(Recipe)}
