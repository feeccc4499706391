# SPDX-License-Identifier: Apache-2.0
"""Self-contained HTML pages: tables, charts and pictures in one file that opens offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLORS", "cards", "chart", "facts", "gallery", "page", "section", "table"]

COLORS = ("#2563eb", "#f59e0b", "#64748b", "#16a34a", "#dc2626")

_STYLE = """
:root{--ink:#0f172a;--soft:#64748b;--line:#e2e8f0;--blue:#2563eb}
*{box-sizing:border-box}
body{margin:0;background:#f8fafc;color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1040px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px}
h2{font-size:20px;margin:0 0 4px}
p{margin:4px 0 12px}.soft{color:var(--soft)}
section{background:#fff;border:1px solid var(--line);border-radius:12px;padding:20px 22px;
 margin-top:20px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;
 margin-top:20px}
.card{background:#fff;border:1px solid var(--line);border-radius:12px;padding:14px 18px}
.card b{display:block;font-size:27px;line-height:1.25}
.card span{color:var(--soft);font-size:14px}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600;font-size:14px}
.text{text-align:left}
tr.best td{background:#eff6ff;font-weight:600}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:18px}
.charts svg{width:100%;height:auto}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(78px,1fr));gap:10px}
.gallery figure{margin:0;text-align:center;font-size:13px;border:2px solid var(--line);
 border-radius:8px;overflow:hidden}
.gallery img{display:block;width:100%}
.gallery figcaption{padding:3px 2px}.gallery .wrong{border-color:#dc2626;color:#b91c1c}
code{background:#f1f5f9;border-radius:5px;padding:2px 6px;font-size:14px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 18px;margin:8px 0 0;
 font-size:14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
"""


def page(title: str, lead: str, parts: Sequence[str]) -> str:
    """Put parts together into one page.

    Args:
        title: Plain text.
        lead: One or two sentences of plain text.
        parts: HTML of the other functions here.

    Returns:
        A whole HTML document that loads nothing from elsewhere.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="soft">{escape(lead)}</p>'
        f"{''.join(parts)}</main></body></html>\n"
    )


def cards(values: Mapping[str, str]) -> str:
    """Show a few headline figures; the key says what the value is."""
    inner = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in values.items()
    )
    return f'<div class="cards">{inner}</div>'


def section(title: str, text: str, *parts: str) -> str:
    """Frame parts under a heading and a sentence of plain text."""
    return (
        f'<section><h2>{escape(title)}</h2><p class="soft">{escape(text)}</p>'
        f"{''.join(parts)}</section>"
    )


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text_columns: int = 1,
    best: Sequence[int] = (),
) -> str:
    """Show rows of plain text.

    Args:
        columns: Their headings.
        rows: Their cells.
        text_columns: How many columns, from the left, hold words; the others hold numbers.
        best: Positions of rows that stand out.

    Returns:
        HTML.
    """

    def cells(tag: str, texts: Sequence[str]) -> str:
        kinds = [
            " class=text" if number < text_columns else "" for number in range(len(texts))
        ]
        pairs = zip(kinds, texts, strict=True)
        return "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for kind, text in pairs)

    head = cells("th", columns)
    body = "".join(
        f"<tr{' class=best' if number in best else ''}>{cells('td', row)}</tr>"
        for number, row in enumerate(rows)
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(values: Mapping[str, Any]) -> str:
    """Show names and values; those that are None are left out."""
    inner = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in values.items()
        if value is not None
    )
    return f"<dl>{inner}</dl>"


def gallery(
    pixels: Sequence[npt.NDArray[np.uint8]], captions: Sequence[str], wrong: Sequence[bool]
) -> str:
    """Show small images, each (H, W, 3) or (H, W) uint8; wrong ones stand out."""
    inner = "".join(
        f"<figure{' class=wrong' if bad else ''}>"
        f'<img alt="{escape(caption)}" src="data:image/png;base64,{_png(image)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for image, caption, bad in zip(pixels, captions, wrong, strict=True)
    )
    return f'<div class="gallery">{inner}</div>'


def chart(*draw: Any) -> str:
    """Draw charts side by side.

    Args:
        draw: Functions that each draw on the matplotlib `Axes` they are given.

    Returns:
        HTML with one SVG a chart.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#94a3b8",
        "axes.grid": True,
        "grid.color": "#e2e8f0",
        "axes.axisbelow": True,
        "svg.hashsalt": "edge-imprint",  # equal charts give equal bytes
    }
    svgs = []
    for function in draw:
        with mpl.rc_context(style):
            figure = Figure(figsize=(5.6, 3.7), layout="constrained")
            FigureCanvasSVG(figure)
            axes: Axes = figure.subplots()
            function(axes)
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None})
        svg = text.getvalue()
        svgs.append(f"<div>{svg[svg.index('<svg') :]}</div>")
    return f'<div class="charts">{"".join(svgs)}</div>'


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode()
