# SPDX-License-Identifier: Apache-2.0
"""Figures are written with as many digits as they bear."""

from __future__ import annotations

import pytest

from edge_imprint_runtime.reporting.words import fact_text, figure, when


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.001234, "0.00123"),
        (0.0995, "0.0995"),
        (0.99949, "0.9995"),
        (0.9996, "1.000"),
        (9.994, "9.994"),
        (9.996, "10.00"),
        (99.96, "100.0"),
        (999.6, "1,000"),
        (-12345.6, "-12,346"),
    ],
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


def test_times() -> None:
    assert when(0) == "1970-01-01 00:00 UTC"
    assert when(1e30) == "1000000000000000019884624838656 s after 1970"


def test_facts() -> None:
    assert fact_text("memory_bytes", 2**30) == "1.1 GB"
    assert fact_text("locked", True) == "yes"
    assert fact_text("nodes", {"A": 1, "B": 2}) == "A 1, B 2"
    assert [fact_text("strays", value) for value in ([], {}, None)] == [None] * 3
    assert fact_text("strays", ["a", "b"]) == "a, b"
    assert fact_text("mhz", 0.1 + 0.2) == "0.3"
