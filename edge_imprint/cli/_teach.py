# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint teach`: a class more, a class better, a class less, on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from edge_imprint.cli._console import FORCE, note, print_json, progress, say
from edge_imprint.photos import expand_photos
from edge_imprint_runtime.errors import (
    BrokenImageError,
    ImageTooLargeError,
    MissingPackageError,
    UnreadableImageError,
)
from edge_imprint_runtime.files import check_output, size_text
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.knowledge import head_beside
from edge_imprint_runtime.model import Model, open_model

__all__ = ["teach"]

_SHOWN = 20  # classes; of more only the one that changed


@click.command()
@click.argument("model", type=click.Path())
@click.argument("photos", nargs=-1, type=click.Path(), metavar="[PHOTO]...")
@click.option("--class", "label", help="The class's name, new or known.")
@click.option("--proxies", type=int, help="Taught proxies of the class, at most.")
@click.option("--forget", "forgotten", is_flag=True, help="Take the class away instead.")
@click.option(
    "--bake", type=click.Path(), help="Also write an ordinary model of what is known now."
)
@click.option(
    "--backend", default="auto", show_default=True, help="auto, cpu, cuda or tensorrt."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@FORCE
def teach(
    model: str,
    photos: tuple[str, ...],
    label: str | None,
    proxies: int | None,
    forgotten: bool,
    bake: str | None,
    backend: str,
    as_json: bool,
    force: bool,
) -> None:
    """Teach MODEL a class from photos, or folders of photos.

    A class that MODEL knows gets better, another is added. What it knows then is written
    beside it, as MODEL.head. MODEL must be exported with --teachable.
    """
    _check_use(photos, label, proxies, forgotten, bake)
    if bake is not None:
        _check_bake(bake, [model, head_beside(model), *photos], force)
    opened = open_model(model, backend)
    result: dict[str, Any] = {"model": model}
    if label is not None and forgotten:
        opened.forget(label)
        result |= {"class": label, "forgotten": True}
    elif label is not None:
        result |= _teach(opened, label, photos, proxies)
    if label is not None:
        result["head"] = str(opened.save_head())
    head = opened.require_head()
    result["classes"] = _classes(head)
    if bake is not None:
        result["baked"] = str(_bake(model, bake, head, force))
    if as_json:
        print_json(result)
    else:
        _tell(result)


def _check_use(
    photos: tuple[str, ...],
    label: str | None,
    proxies: int | None,
    forgotten: bool,
    bake: str | None,
) -> None:
    if label is None and bake is None:
        raise click.UsageError("name the class with --class NAME")
    if label is None and (photos or forgotten or proxies is not None):
        raise click.UsageError("name the class with --class NAME")
    if label is not None and forgotten and (photos or proxies is not None):
        raise click.UsageError("--forget takes no photos and no --proxies")
    if label is not None and not forgotten and not photos:
        raise click.UsageError("name photos, or folders of photos, of the class")


def _check_bake(bake: str, inputs: list[str | Path], force: bool) -> None:
    """Refuse what would fail after the teaching."""
    check_output(bake, force=force, inputs=inputs)
    try:
        import edge_imprint_export.head.teachable  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("onnx", "--bake", "demo") from error


def _teach(
    model: Model, label: str, photos: tuple[str, ...], proxies: int | None
) -> dict[str, Any]:
    """Teach all photos, or none where one of them can't be read."""
    model.require_head()
    files = [file for path in photos for file in expand_photos(Path(path))]
    rows, broken = [], 0
    with progress() as tell:
        for done, file in enumerate(files, 1):
            try:
                rows.append(model.embed(file))  # one by one, as Model.teach does
            except (BrokenImageError, ImageTooLargeError, UnreadableImageError) as error:
                broken += 1
                note(f"error: {error}")
            tell("looking", done, len(files))
    if broken:
        raise UnreadableImageError(
            f"{broken} of {len(files)} photos can't be read, and nothing was taught; "
            "leave them out"
        )
    embeddings = np.concatenate(rows)
    known = label in model.labels
    head = model.teach_embeddings(label, embeddings, proxies=proxies)
    named = np.array(head.labels)[head.predict(embeddings)]
    return {
        "class": label,
        "new": not known,
        "photos": len(files),
        "recognized": int((named == label).sum()),
    }


def _classes(head: Head) -> list[dict[str, Any]]:
    counts = np.bincount(head.class_index)
    host = counts if head.host_proxies is None else head.host_proxies
    samples = np.zeros(len(counts), np.int64)
    if head.sample_class is not None:
        samples = np.bincount(head.sample_class, minlength=len(counts))
    return [
        {
            "label": label,
            "host_proxies": int(host[c]),
            "taught_proxies": int(counts[c] - host[c]),
            "taught_photos": int(samples[c]),
            "threshold": None if head.threshold is None else float(head.threshold[c]),
        }
        for c, label in enumerate(head.labels)
    ]


def _bake(model: str, out: str, head: Head, force: bool) -> Path:
    from edge_imprint_export import save
    from edge_imprint_export.files.guard import read_model
    from edge_imprint_export.head.teachable import bake

    return save(bake(read_model(model), head), out, force=force)


def _tell(result: dict[str, Any]) -> None:
    classes = result["classes"]
    if result.get("forgotten"):
        say(f"{result['class']!r} is forgotten")
    elif "class" in result:
        photos, right = result["photos"], result["recognized"]
        done = "a new class" if result["new"] else "known before"
        say(
            f"{result['class']!r}, {done}: {right} of {photos} photos just taught are "
            "recognized"
        )
    if "head" in result:
        say(f"{result['head']}: {len(classes)} classes")
    many = len(classes) > _SHOWN
    shown = [c for c in classes if not many or c["label"] == result.get("class")]
    for entry in shown:
        taught = f"{entry['taught_photos']} photos taught, {entry['taught_proxies']} proxies"
        host = f"{entry['host_proxies']} proxies of the host"
        parts = [host] if entry["host_proxies"] else []
        parts += [taught] if entry["taught_photos"] else []
        say(f"  {entry['label']!r}: {', '.join(parts)}")
    if many:
        say(f"  and {len(classes) - len(shown)} more")
    if "baked" in result:
        baked = Path(result["baked"])
        say(f"{baked}: {size_text(baked.stat().st_size)}, {len(classes)} classes")
