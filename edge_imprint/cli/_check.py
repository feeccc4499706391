# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint check`."""

from __future__ import annotations

from dataclasses import asdict

import click

from edge_imprint.cli._console import print_json, say
from edge_imprint_export.files.guard import read_model
from edge_imprint_export.targets.check import check as find
from edge_imprint_export.targets.check import grouped
from edge_imprint_export.targets.records import DEFAULT_TARGET
from edge_imprint_export.targets.records import target as find_target
from edge_imprint_runtime.errors import TargetError

__all__ = ["check"]


@click.command()
@click.argument("model", type=click.Path())
@click.option(
    "--target", default=DEFAULT_TARGET, show_default=True, help="Where it is to run."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on stdout.")
def check(model: str, target: str, as_json: bool) -> None:
    """Tell what TARGET won't take of MODEL, or takes and computes wrongly.

    MODEL is any ONNX file, of edge-imprint or not. The exit status is 1 where anything is
    refused or wrong; notes alone are no failure.
    """
    chosen = find_target(target)
    # Operators that no target knows are findings here, not a file that can't be read.
    findings = find(read_model(model, f"the model {model}", foreign=True), chosen)
    failed = [finding for finding in findings if finding.fails]
    groups = grouped(findings)
    if as_json:
        print_json(
            {
                "model": model,
                "target": chosen.name,
                "taken": not failed,
                "findings": [asdict(finding) for finding in findings],
            }
        )
    else:
        for group in groups:
            say(str(group))
        if not failed:
            say(f"{chosen.name} takes {model}")
    if failed:
        causes = sum(group.severity != "note" for group in groups)
        raise TargetError(
            f"{chosen.name} refuses {model} or computes it wrongly, for {causes} "
            f"{'reasons' if causes > 1 else 'reason'}; see above"
        )
