# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint demo`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from edge_imprint.cli._console import command_name, progress, say, table
from edge_imprint.demo import TASKS, run_demo

__all__ = ["demo"]


@click.command()
@click.option(
    "--out",
    default="demo-out",
    show_default=True,
    type=click.Path(),
    help="A folder for the photos, the model and the report.",
)
def demo(out: str) -> None:
    """See it work, on real handwritten digits, in under a minute.

    Imprints scikit-learn's digits on a built-in network that has seen only letters, fuses
    them into one ONNX file, verifies, predicts, measures, and writes report.html.
    """
    with progress() as tell:
        report = run_demo(out, tell)
    folder = Path(out)
    rows = report["comparison"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells = [
        [task] + [f"{100 * row['accuracy']:.1f} %" for row in rows if row["task"] == task]
        for task in TASKS
    ]
    table("Accuracy on held-out photos", ["task", *methods], cells)
    checked, fused = report["verification"], report["latency"]["series"][0]
    right = f"{100 * report['model']['accuracy']:.1f} %"
    say(
        f"one file:  {folder / report['model']['file']} "
        f"({report['model']['size_bytes'] / 1e6:.1f} MB), "
        f"{right} of {report['photos_held_out']} photos right"
    )
    say(
        f"verified:  {checked['agreement']:.2%} of {checked['images']} labels agree with the "
        f"oracle, scores differ by at most {checked['max_difference']:.1g}"
    )
    unknown = report["unknown"]
    say(
        f"unknown:   0 to {unknown['imprinted'] - 1} imprinted, then shown "
        f"{unknown['imprinted']} and 9: {unknown['detected']:.1%} called unknown, "
        f"{unknown['false_alarm']:.1%} of the others"
    )
    say(
        f"latency:   p50 {fused['p50_ms']:.3f} ms, p99 {fused['p99_ms']:.3f} ms on "
        f"{report['latency']['provider']['name']}"
    )
    say(f"report:    {folder / 'report.html'} ({report['total_s']:.0f} s in all)")
    photos = folder / "photos" / "held_out" / "7"
    model = shlex.quote(str(folder / "digits.onnx"))
    say(f"try:       {command_name()} predict {model} {shlex.quote(str(photos))}")
