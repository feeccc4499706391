# SPDX-License-Identifier: Apache-2.0
"""Which lines of runtime/c the C tests run: ``python -m tests.c.coverage [--read]``.

Runs the tests with a build that counts lines, and prints a table; with --read only the table
of a run before. Ends with 1 where fewer than 95 % of the library's lines were run, or 93 % of
the programs', of whose lines chance chooses some (an interrupt, a short read of a pipe).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "c-tests" / "coverage"
LEAST_PERCENT = {"src": 95.0, "programs": 93.0}
# These build for themselves, or run the other tests once more.
LEFT_OUT = ("build", "packages", "sanitizers", "fuzz")

# The library, and the programs: the folders of what CMake compiled, and where its sources are.
PARTS = {
    "src": ("edge_imprint_objects",),
    "programs": ("edge_imprint_programs", "ei-bench", "ei-classify", "ei-teach"),
}

Lines = dict[int, int]


def run_tests(folder: Path) -> None:
    """Run the C tests with a build that counts, from zero."""
    for file in folder.rglob("*.gcda"):
        file.unlink()
    ignored = [f"--ignore=tests/c/test_{name}.py" for name in LEFT_OUT]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/c", *ignored],
        cwd=ROOT,
        env=os.environ | {"EI_COVERAGE_DIR": str(folder)},
        check=True,
    )


def read(folder: Path, part: str) -> dict[str, Lines]:
    """Read the counts of a part's sources: file -> line -> how often."""
    gcov = shutil.which("gcov")
    if gcov is None:
        sys.exit("needs gcov; on Debian: apt-get install gcc")
    notes = sorted(
        note
        for target in PARTS[part]
        for note in (folder / "CMakeFiles" / f"{target}.dir").rglob("*.gcno")
    )
    if not notes:
        sys.exit(f"there is no build that counts lines in {folder}")
    out = subprocess.run(
        [gcov, "--json-format", "--stdout", *map(str, notes)],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    ).stdout
    found: dict[str, Lines] = defaultdict(dict)
    for text in out.splitlines():
        for file in json.loads(text)["files"]:
            path = Path(file["file"])
            if path.suffix == ".c" and part in path.parts:
                lines = found[path.name]
                for line in file["lines"]:
                    number = line["line_number"]
                    lines[number] = max(lines.get(number, 0), line["count"])
    return found


def table(part: str, found: dict[str, Lines]) -> float:
    """Print a line a file, with the lines that did not run; return the percentage of all."""
    width = max(map(len, found))
    for name in sorted(found):
        lines = found[name]
        missed = [number for number, count in sorted(lines.items()) if not count]
        share = 100 * (1 - len(missed) / len(lines))
        print(f"{name:<{width}}  {len(lines):5}  {share:6.1f} %  {ranges(missed)}".rstrip())
    total = sum(len(lines) for lines in found.values())
    run = sum(bool(count) for lines in found.values() for count in lines.values())
    percent = 100 * run / total
    print(f"{'all of ' + part:<{width}}  {total:5}  {percent:6.1f} %")
    return percent


def ranges(numbers: list[int]) -> str:
    """Write numbers as a person would: 3-5 9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return " ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)


def main() -> int:
    """Run, read, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read", action="store_true", help="read what an earlier run counted")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the build")
    options = parser.parse_args()
    if not options.read:
        run_tests(options.folder.resolve())
    folder = options.folder.resolve()
    below = [part for part in PARTS if table(part, read(folder, part)) < LEAST_PERCENT[part]]
    for part in below:
        print(f"{part} is below {LEAST_PERCENT[part]} %")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
