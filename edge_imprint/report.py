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

__all__ = [
    "COLORS",
    "cards",
    "chart",
    "code",
    "facts",
    "gallery",
    "grid",
    "heat",
    "listing",
    "page",
    "palette",
    "section",
    "table",
    "words",
]

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
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(380px,100%),1fr));gap:18px}
.charts svg{width:100%;height:auto}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(78px,1fr));gap:10px}
.gallery figure{margin:0;text-align:center;font-size:13px;border:2px solid var(--line);
 border-radius:8px;overflow:hidden}
.gallery img{display:block;width:100%}
.gallery figcaption{padding:3px 2px}.gallery .wrong{border-color:#dc2626;color:#b91c1c}
.gallery figcaption{overflow-wrap:anywhere;line-height:1.25}
code{background:#f1f5f9;border-radius:5px;padding:2px 6px;font-size:14px}
pre{background:#f1f5f9;border-radius:8px;padding:10px 14px;font-size:14px;margin:8px 0;
 white-space:pre-wrap;overflow-wrap:anywhere}
.heat td,.heat th{padding:3px 4px;min-width:26px;font-size:12px;text-align:center;
 border:1px solid #fff}
.heat .text{text-align:right;max-width:180px;overflow:hidden;text-overflow:ellipsis}
.heat thead th{vertical-align:bottom}
.heat thead span{writing-mode:vertical-rl;transform:rotate(180deg);max-height:150px;
 overflow:hidden}
.heat table{width:auto}
.grid{display:grid;gap:12px 22px;align-items:center}
.grid b{font-size:14px;overflow-wrap:anywhere}
.listing{margin:0;padding-left:18px;font-size:14px;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 18px;margin:8px 0 0;
 font-size:14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:600px){main{padding:20px 10px 40px}section{padding:16px 8px}
 dl{grid-template-columns:1fr}dd{margin-bottom:6px}
 th,td{padding:6px 2px;font-size:11px}th{font-size:10px}th,.text{white-space:normal}
 td:first-child{overflow-wrap:anywhere;min-width:60px}}
@media print{body{background:#fff}main{max-width:none;padding:0}
 section,.card{break-inside:avoid}}
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


def code(lines: Sequence[str]) -> str:
    """Show lines to be copied."""
    text = "\n".join(lines)
    return f"<pre>{escape(text)}</pre>"


def words(text: str) -> str:
    """Show a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def listing(items: Sequence[str]) -> str:
    """Show a list of plain texts."""
    inner = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f'<ul class="listing">{inner}</ul>'


def grid(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Lay parts out in rows that have a name.

    Args:
        columns: Headings, plain text.
        rows: Names, plain text, each with one part (HTML of the other functions) a column.

    Returns:
        HTML.
    """
    head = "".join(f'<span class="soft">{escape(column)}</span>' for column in columns)
    body = "".join(
        f"<b>{escape(name)}</b>{''.join(f'<div>{part}</div>' for part in parts)}"
        for name, parts in rows
    )
    widths = "fit-content(190px) " + " ".join(["minmax(0,1fr)"] * len(columns))
    style = f"grid-template-columns:{widths}"
    return f'<div class="grid" style="{style}"><span></span>{head}{body}</div>'


def heat(rows: Sequence[str], columns: Sequence[str], counts: npt.NDArray[np.int64]) -> str:
    """Show a confusion matrix, coloured by the share of its row.

    Args:
        rows: Names of the true classes.
        columns: Names of the answers; the first are those of the rows, in their order.
        counts: (rows, columns) int64.

    Returns:
        HTML: what is right blue, what is wrong red; zeros are left empty.
    """
    totals = np.maximum(counts.sum(axis=1), 1)
    head = "".join(f"<th><span>{escape(name)}</span></th>" for name in columns)
    body = []
    for r, name in enumerate(rows):
        cells = []
        for c, count in enumerate(counts[r].tolist()):
            if not count:
                cells.append("<td></td>")
                continue
            color = "37,99,235" if r == c else "220,38,38"
            share = count / totals[r]
            strength = 0.1 + 0.75 * (share if r == c else min(1.0, 4 * share))
            ink = ";color:#fff" if strength > 0.55 else ""
            cells.append(
                f'<td style="background:rgba({color},{strength:.2f}){ink}">{count}</td>'
            )
        body.append(f"<tr><th class=text>{escape(name)}</th>{''.join(cells)}</tr>")
    return (
        f'<div class="wide heat"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


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


def palette(count: int) -> npt.NDArray[np.float64]:
    """Return (count, 4) colours, told apart as well as so many can be."""
    import matplotlib as mpl

    if count > 20:
        return np.asarray(mpl.colormaps["hsv"](np.arange(count) / count), np.float64)
    colors = mpl.colormaps["tab10" if count <= 10 else "tab20"]
    return np.array([colors(number) for number in range(count)])


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode()
