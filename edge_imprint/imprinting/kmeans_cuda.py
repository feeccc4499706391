# SPDX-License-Identifier: Apache-2.0
"""The k-means of `edge_imprint.imprinting.kmeans` in torch, for all classes at once.

Classes of unlike sizes are padded with rows of weight 0. Draws, start, iteration and tolerance
are those of the numpy code; sums may differ in their last bits, and so may what hangs on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edge_imprint.imprinting.kmeans import (
    MAX_ITERATIONS,
    SKETCH,
    TOLERANCE,
    Draws,
    Float32,
    Float64,
    distinct,
    draws,
    draws_sample,
    range_scale,
    refill,
)
from edge_imprint_runtime.errors import MissingPackageError, ProviderError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edge_imprint.imprinting.proxies import Generator

__all__ = ["BATCH", "generator"]

# Numbers in the classes that go to the device at once: 512 MiB; it needs about three times
# that.
BATCH = 2**27
# Numbers in a block of scores (rows x centres).
_BLOCK = 2**27


def generator(device: str) -> Generator:
    """Return the generator for a torch device, as `edge_imprint.imprinting.proxies` has them.

    Raises:
        MissingPackageError: torch is not installed.
        ProviderError: torch finds no CUDA device.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError("torch", "k-means on CUDA", "host") from error
    if device == "cuda" and not torch.cuda.is_available():
        raise ProviderError("torch finds no CUDA device on this machine; use --device cpu")
    # TF32 keeps ten bits of a factor: too few to tell near rows apart.
    torch.backends.cuda.matmul.allow_tf32 = False

    def make(rows: list[Float32], weights: list[Float64], k: int, seed: int) -> list[Float32]:
        made = list(rows)  # one proxy a row where k rows are all there are
        with torch.inference_mode():
            for chosen in _alike([len(part) for part in rows], rows[0].shape[1], k):
                classes = [(rows[i], weights[i]) for i in chosen]
                for i, centres in zip(chosen, _kmeans(classes, k, seed, device), strict=True):
                    made[i] = centres
        return made

    return make


def _alike(sizes: list[int], length: int, k: int) -> Iterator[list[int]]:
    """Group classes of more than k rows so that padding at most doubles what they hold."""
    group: list[int] = []
    for i in sorted((i for i, n in enumerate(sizes) if n > k), key=lambda i: sizes[i]):
        n = sizes[i]
        if group and (n > 2 * sizes[group[0]] or (len(group) + 1) * n * length > BATCH):
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _kmeans(
    classes: list[tuple[Float32, Float64]], k: int, seed: int, device: str
) -> list[Float32]:
    import torch

    sizes = [len(weights) for _, weights in classes]
    length = classes[0][0].shape[1]
    padded = np.zeros((len(classes), max(sizes), length), np.float32)
    mass = np.zeros(padded.shape[:2])
    scale = np.array([range_scale(rows) for rows, _ in classes])[:, np.newaxis, np.newaxis]
    for b, (rows, weights) in enumerate(classes):
        padded[b, : sizes[b]] = rows * scale[b] if scale[b] != 1 else rows
        mass[b, : sizes[b]] = weights / weights.sum()
    x = torch.from_numpy(padded).to(device)
    share64 = torch.from_numpy(mass).to(device)
    share = share64.float()
    counts = torch.tensor(sizes, device=device)
    mean = share.unsqueeze(1) @ x
    x -= mean
    x *= (share > 0).unsqueeze(2)
    chosen, potential = _seed(x, share64, counts, draws(seed, k, length))
    centres = x.gather(1, chosen.unsqueeze(2).expand(-1, -1, length))
    centres, used = _lloyd(x, share, counts, centres, potential * TOLERANCE)
    whole = (centres.double().cpu().numpy() + mean.double().cpu().numpy()) / scale
    kept = used.cpu().numpy()
    return [distinct(c[u].astype(np.float32)) for c, u in zip(whole, kept, strict=True)]


def _seed(x: Tensor, share: Tensor, counts: Tensor, draw: Draws) -> tuple[Tensor, Tensor]:
    """Choose k rows a class; see `edge_imprint.imprinting.kmeans`."""
    import torch

    k = len(draw.uniforms)
    sample, there = _samples(draw.seed, k, counts, x.device)
    each = torch.arange(len(x), device=x.device)
    sketch = x if draw.signs is None else _sketch(x, torch.from_numpy(draw.signs).to(x.device))
    sketch, share = sketch[each.unsqueeze(1), sample], share.gather(1, sample) * there
    share = (share / share.sum(1, keepdim=True)).float()
    square = (sketch * sketch).sum(2, keepdim=True)
    one = torch.ones_like(square)
    left = torch.cat([-2 * sketch, square, one], 2)
    right = torch.cat([sketch, one, square], 2).transpose(1, 2).contiguous()
    uniforms = torch.from_numpy(draw.uniforms).to(x.device)
    last = there.sum(1, keepdim=True) - 1
    near, mass, chosen = torch.full_like(share, torch.inf), share, []
    for j in range(k):
        upto = mass.cumsum(1, dtype=torch.float64)
        wanted = upto[:, -1:] * uniforms[j, : None if j else 1]
        found = torch.searchsorted(upto, wanted, right=True).minimum(last)
        distance = left.gather(1, found.unsqueeze(2).expand(-1, -1, left.shape[2])) @ right
        distance = torch.minimum(distance, near.unsqueeze(1))
        best = (distance @ share.unsqueeze(2)).squeeze(2).argmin(1)
        chosen.append(found[each, best])
        near = distance[each, best].clamp_min(0)
        mass = near * share
    return sample.gather(1, torch.stack(chosen, 1)), mass.sum(1, dtype=torch.float64)


def _samples(seed: int, k: int, counts: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (B, s) indices of the rows that the start looks at, and whether each is one."""
    import torch

    samples = [torch.from_numpy(draws_sample(seed, k, n)) for n in counts.tolist()]
    index = torch.nn.utils.rnn.pad_sequence(samples, batch_first=True, padding_value=-1)
    return index.clamp_min(0).to(device), (index >= 0).to(device)


def _sketch(x: Tensor, signs: Tensor) -> Tensor:
    sketch = x[:, :, :SKETCH] * signs[0]
    for i in range(1, len(signs)):
        block = x[:, :, SKETCH * i : SKETCH * (i + 1)]
        sketch[:, :, : block.shape[2]] += block * signs[i, : block.shape[2]]
    return sketch


def _lloyd(
    x: Tensor, share: Tensor, counts: Tensor, centres: Tensor, tolerance: Tensor
) -> tuple[Tensor, Tensor]:
    """Iterate; see `edge_imprint.imprinting.kmeans`."""
    import torch

    final, used = (
        torch.empty_like(centres),
        torch.empty_like(centres[:, :, 0], dtype=torch.bool),
    )
    live = torch.arange(len(x), device=x.device)
    for iteration in range(MAX_ITERATIONS):
        updated, weight = _assign(x, share, centres)
        empty = weight == 0
        updated /= torch.where(empty, 1, weight).unsqueeze(2)
        updated = torch.where(empty.unsqueeze(2), centres, updated)
        fell = (weight.unsqueeze(2) * (updated - centres) ** 2).sum((1, 2))
        for b in empty.any(1).nonzero().flatten().tolist():  # rare: on the host, as in numpy
            moved = updated[b].cpu().numpy()
            if refill(x[b, : counts[b]].cpu().numpy(), moved, weight[b].cpu().numpy()):
                updated[b] = torch.from_numpy(moved).to(x.device)
                fell[b] = torch.inf
        done = (fell <= tolerance) | (iteration == MAX_ITERATIONS - 1)
        final[live[done]], used[live[done]] = updated[done], ~empty[done]
        if done.any():
            go = ~done
            live, x, share, counts, tolerance = (
                part[go] for part in (live, x, share, counts, tolerance)
            )
            updated = updated[go]
        if not len(live):
            break
        centres = updated
    return final, used


def _assign(x: Tensor, share: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Assign rows to their nearest centres; return weighted sums and weights a centre."""
    import torch

    half = 0.5 * (centres * centres).sum(2).unsqueeze(1)
    sums, weight = torch.zeros_like(centres), torch.zeros_like(centres[:, :, 0])
    step = max(1, _BLOCK // (centres.shape[0] * centres.shape[1]))
    for start in range(0, x.shape[1], step):
        part, mass = x[:, start : start + step], share[:, start : start + step]
        scores = half - part @ centres.transpose(1, 2)
        labels = scores.argmin(2, keepdim=True)
        belongs = scores.zero_().scatter_(2, labels, mass.unsqueeze(2))
        sums += belongs.transpose(1, 2) @ part
        weight += belongs.sum(1)
    return sums, weight
