# SPDX-License-Identifier: Apache-2.0
"""Photos that are all but the same, and photos that look like another class.

Both are reported, never left out. Distances are between embeddings of unit length, and are
seen against the *typical* one: the median distance from a photo to its nearest neighbour. A
fixed cosine would not do, since backbones spread photos over quite different angles.
docs/memory.md has the figures behind the two rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.classes import drawn_by_content
from edge_imprint.embedding.nearest import (
    Float32,
    Int64,
    Nearest,
    Read,
    Told,
    nearest_among,
    nearest_to,
)
from edge_imprint.imprinting.sources import normalized

__all__ = ["NEAR", "Duplicate", "Neighbours", "Suspect", "exact_distance", "find_neighbours"]

Float64: TypeAlias = npt.NDArray[np.float64]
Digests: TypeAlias = npt.NDArray[np.uint8]

# Near-duplicates are nearer than this share of the typical distance. Of 1,797 handwritten
# digits no two are nearer than 0.47; the same photo stored again (JPEG, half the size) is
# nearly always nearer than 0.1.
NEAR = 0.3
# A suspect's five nearest of other classes are, in the mean, nearer than this share of the
# distance to its own class's nearest.
_NEARER = 0.9
_MAJORITY = 3  # of those five are of one class
_FEWEST = 3  # photos that a class has to have before one of them can be suspect
_COMPARED = 20_000
_LISTED = 100
_BLOCK = 1024  # pairs whose rows are in memory at once


@dataclass(frozen=True)
class Duplicate:
    """Two photos that are the same or all but the same.

    Attributes:
        first: The position of the one.
        second: That of the other.
        first_class: The class of the one.
        second_class: That of the other.
        similarity: The cosine between their embeddings; 1 for the same bytes.
        exact: Whether their files hold the same bytes.
    """

    first: int
    second: int
    first_class: int
    second_class: int
    similarity: float
    exact: bool

    @property
    def contradiction(self) -> bool:
        """Whether the two are given different classes."""
        return self.first_class != self.second_class


@dataclass(frozen=True)
class Suspect:
    """A photo whose nearest neighbours are of another class.

    Attributes:
        photo: Its position.
        own_class: The class it is given.
        other_class: The class it looks like.
        neighbour: The position of the nearest photo of that class.
        similarity: The cosine between the two.
    """

    photo: int
    own_class: int
    other_class: int
    neighbour: int
    similarity: float


@dataclass(frozen=True)
class Neighbours:
    """What is odd about photos, as their neighbours tell.

    Attributes:
        duplicates: At most 100: those in two classes first, then those with the same bytes,
            then the most similar.
        duplicate_count: How many there are.
        contradiction_count: How many of them are in two classes.
        suspects: At most 100, the surest first.
        suspect_count: How many there are.
        compared: Photos that each was compared with: all, or 20,000 of more.
    """

    duplicates: tuple[Duplicate, ...]
    duplicate_count: int
    contradiction_count: int
    suspects: tuple[Suspect, ...]
    suspect_count: int
    compared: int


def find_neighbours(
    read: Read,
    class_index: Int64,
    digests: Digests,
    *,
    seed: int = 0,
    progress: Told | None = None,
) -> Neighbours:
    """Find near-duplicates and mislabelled suspects.

    Two photos are near-duplicates if they are nearer than 0.3 of the typical distance. A
    photo is suspect if none of its class is as near as five photos of others are in the mean,
    by a tenth, and three of these five are of one class; a class of two photos has none. The
    same bytes twice in one class count once, so that a copy does not vouch for its copy.

    Args:
        read: Gives the (n, D) float32 embeddings of photos by their positions, such as
            `StoredClasses.read`.
        class_index: (N,) the photos' classes, 0..C-1.
        digests: (N, 32) uint8, the SHA-256 of their bytes.
        seed: For the draw of those to compare with.
        progress: Told (done, total), several times from the start.

    Returns:
        What was found. Every pair is compared of up to 20,000 different photos; of more, each
        photo with 20,000 drawn evenly by class. Same bytes are always found.
    """
    class_index = np.asarray(class_index, np.int64)
    shown, pairs = _copies(class_index, digests)
    reference = _evenly(shown, class_index, digests, seed)
    search = _Search(read, class_index, digests)
    among = nearest_among(read, reference, class_index, progress=progress)
    nearest = np.maximum(among.own, among.other[:, 0])
    there = nearest > -np.inf
    typical = float(np.median(_apart(nearest[there]))) if there.any() else 0.0
    search.look(among, typical)
    rest = np.setdiff1d(shown, reference, assume_unique=True)
    if len(rest):
        for part in nearest_to(read, rest, reference, class_index, progress=progress):
            search.look(part, typical)
    return search.report(pairs, len(reference))


def exact_distance(read: Read, first: Int64, second: Int64) -> Float64:
    """Return the (n,) distances of pairs of rows, at unit length, in float64.

    A product has no digits left where two rows are all but the same.
    """
    apart = np.empty(len(first))
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        a, b = (_unit64(read(one[part])) for one in (first, second))
        apart[part] = np.sqrt(np.einsum("nd,nd->n", a - b, a - b))
    return apart


class _Search:
    """Gathers what is found, part by part."""

    def __init__(self, read: Read, class_index: Int64, digests: Digests) -> None:
        self._read, self._class, self._digests = read, class_index, digests
        self._sizes = np.bincount(class_index)
        self._pairs: list[tuple[Int64, Float64]] = []
        self._suspects: list[tuple[Float64, Int64, Int64, Float32]] = []

    def look(self, found: Nearest, typical: float) -> None:
        """Take what is odd out of some rows' neighbours."""
        position = found.position
        self._duplicates(position, found.own_at, found.own, typical)
        self._duplicates(position, found.other_at[:, 0], found.other[:, 0], typical)
        self._look_for_suspects(found)

    def _duplicates(
        self, position: Int64, at: Int64, similarity: Float32, typical: float
    ) -> None:
        # float32 is a guess here; what it lets through is measured again.
        maybe = np.flatnonzero(_apart(similarity) <= 1.2 * NEAR * typical + 1e-3)
        maybe = maybe[at[maybe] >= 0]
        pairs = np.sort(np.column_stack([position[maybe], at[maybe]]), axis=1)
        same = (self._digests[pairs[:, 0]] == self._digests[pairs[:, 1]]).all(axis=1)
        pairs = np.unique(pairs[~same], axis=0)
        apart = exact_distance(self._read, pairs[:, 0], pairs[:, 1])
        near = apart <= NEAR * typical
        self._pairs.append((pairs[near], apart[near]))

    def _look_for_suspects(self, found: Nearest) -> None:
        classes = np.where(found.other_at >= 0, self._class[found.other_at], -1)
        middle = np.sort(classes, axis=1)[:, classes.shape[1] // 2]  # the majority's, if any
        votes = classes == middle[:, np.newaxis]
        own, others = _apart(found.own), _apart(found.other).mean(axis=1)
        odd = np.flatnonzero(
            (found.other_at[:, -1] >= 0)
            & (votes.sum(axis=1) >= _MAJORITY)
            & (found.own_at >= 0)
            & (self._sizes[self._class[found.position]] >= _FEWEST)
            & (others < _NEARER * own)
        )
        first = votes[odd].argmax(axis=1)
        self._suspects.append(
            (
                others[odd] / own[odd],
                found.position[odd],
                found.other_at[odd, first],
                found.other[odd, first],
            )
        )

    def report(self, copies: Int64, compared: int) -> Neighbours:
        """Put what was found in order."""
        near = np.concatenate([pairs for pairs, _ in self._pairs])
        apart = np.concatenate([distance for _, distance in self._pairs])
        near, once = np.unique(near, axis=0, return_index=True)
        pairs = np.concatenate([copies, near])
        apart = np.concatenate([np.full(len(copies), -1.0), apart[once]])  # copies first
        agrees = self._class[pairs[:, 0]] == self._class[pairs[:, 1]]
        order = np.lexsort((pairs[:, 1], pairs[:, 0], apart, agrees))
        duplicates = [self._duplicate(pairs[i], float(apart[i])) for i in order[:_LISTED]]
        odd, photo, neighbour, similarity = (
            np.concatenate(column) for column in zip(*self._suspects, strict=True)
        )
        surest = np.lexsort((photo, odd))[:_LISTED]
        suspects = [
            Suspect(
                int(photo[i]),
                int(self._class[photo[i]]),
                int(self._class[neighbour[i]]),
                int(neighbour[i]),
                float(similarity[i]),
            )
            for i in surest
        ]
        return Neighbours(
            tuple(duplicates),
            len(pairs),
            int(np.count_nonzero(~agrees)),
            tuple(suspects),
            len(photo),
            compared,
        )

    def _duplicate(self, pair: Int64, apart: float) -> Duplicate:
        first, second = int(pair[0]), int(pair[1])
        return Duplicate(
            first,
            second,
            int(self._class[first]),
            int(self._class[second]),
            1.0 - max(apart, 0.0) ** 2 / 2,
            apart < 0,
        )


def _copies(class_index: Int64, digests: Digests) -> tuple[Int64, Int64]:
    """Find the same bytes.

    Returns:
        The first photo of each content in each class, and (n, 2) pairs: each further photo of
        a content with the first of it.
    """
    content = np.ascontiguousarray(digests).view(np.dtype((np.void, 32)))[:, 0]
    order = np.argsort(content, kind="stable")
    new = np.ones(len(order), np.bool_)
    new[1:] = content[order][1:] != content[order][:-1]
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    pairs = np.column_stack([first[~new], order[~new]])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new)
    _, shown = np.unique(np.column_stack([group, class_index]), axis=0, return_index=True)
    return np.sort(shown), pairs


def _evenly(shown: Int64, class_index: Int64, digests: Digests, seed: int) -> Int64:
    """Draw at most 20,000 photos, as many of each class as it has, up to one number."""
    if len(shown) <= _COMPARED:
        return shown
    order = shown[np.argsort(class_index[shown], kind="stable")]
    sizes = np.unique(class_index[order], return_counts=True)[1]
    rising, left = np.sort(sizes), _COMPARED
    quota = 1
    for i, size in enumerate(rising):
        quota = max(1, left // (len(rising) - i))
        if size > quota:
            break
        left -= int(size)
    drawn = [
        drawn_by_content(digests, members, quota, seed)
        for members in np.split(order, np.cumsum(sizes)[:-1])
    ]
    return np.sort(np.concatenate(drawn)[:_COMPARED])


def _apart(cosine: Float32) -> Float64:
    """Turn cosines into distances at unit length; -inf into inf."""
    return np.sqrt(np.maximum(2 - 2 * cosine.astype(np.float64), 0))


def _unit64(rows: Float32) -> Float64:
    unit = normalized(rows, "l2").astype(np.float64)
    return unit
