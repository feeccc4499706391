# SPDX-License-Identifier: Apache-2.0
"""Make the tables behind `edge-imprint backbones`: every network of timm and torchvision.

Each is built without numbers (torch's meta device) and given two images without numbers, so
that neither weights nor memory are needed: 7 minutes on one core for all. Run it where the
newest versions are installed::

    .venv/bin/python benchmarks/backbones_table.py

Networks that can't be built are named, and left out of the table.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import metadata
from pathlib import Path

from edge_imprint.backbones import listing
from edge_imprint.backbones.measure import measure, names
from edge_imprint_runtime.errors import EdgeImprintError
from edge_imprint_runtime.files import write_atomic

FOLDER = Path(listing.__file__).parent / "data"


def main() -> None:
    """Write the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="*", default=listing.LIBRARIES)
    parser.add_argument("--out", type=Path, default=FOLDER, help="Folder of the tables.")
    options = parser.parse_args()
    for library in options.libraries:
        wanted = [name for name in names() if name.startswith(f"{library}/")]
        began, entries = time.perf_counter(), []
        for number, name in enumerate(wanted):
            try:
                entries.append(measure(name))
            except EdgeImprintError as error:
                print(error, file=sys.stderr)
            if sys.stderr.isatty():
                print(f"\r{library} {number + 1}/{len(wanted)}", end="", file=sys.stderr)
        version = metadata.version(library).partition("+")[0]
        text = listing.write_table(library, version, entries)
        out = write_atomic(options.out / f"{library}.csv", text.encode(), force=True)
        took = time.perf_counter() - began
        unfit = sum(not entry.embedding_size for entry in entries)
        print(
            f"{out.name}: {len(entries)} of {len(wanted)} networks of {library} {version}, "
            f"{unfit} give no vector, {len(text):,} bytes, {took:.0f} s"
        )


if __name__ == "__main__":
    main()
