# SPDX-License-Identifier: Apache-2.0
"""The count of lines that ran: it counts those that did, and finds those that did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.c.building import run, tool
from tests.c.coverage import ranges, read, table


def test_lines_that_ran_and_that_did_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool("gcov", "gcc")
    objects = tmp_path / "CMakeFiles/edge_imprint_objects.dir"
    source = tmp_path / "src/it.c"
    for folder in (objects, source.parent):
        folder.mkdir(parents=True)
    source.write_text(
        "int main(int argc, char **argv)\n{\n    if (argc > 1)\n"
        "        return argv[1][0];\n    return 0;\n}\n"
    )
    run(tool("gcc"), "--coverage", "-O0", "-c", source, "-o", objects / "it.o")
    run("gcc", "--coverage", objects / "it.o", "-o", tmp_path / "it")
    run(tmp_path / "it")
    found = read(tmp_path, "src")
    assert [number for number, count in found["it.c"].items() if not count] == [4]
    assert table("src", found) == 75.0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["it.c", "4", "75.0", "%", "4"],
        ["all", "of", "src", "4", "75.0", "%"],
    ]


def test_ranges_as_a_person_writes_them() -> None:
    assert ranges([]) == ""
    assert ranges([3, 4, 5, 9, 11, 12]) == "3-5 9 11-12"
