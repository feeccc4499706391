# SPDX-License-Identifier: Apache-2.0
"""Self-contained HTML pages: tables, charts and pictures in one file that opens offline."""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "Cell",
    "beside",
    "can_draw",
    "cards",
    "chart",
    "drawings",
    "code",
    "facts",
    "folded",
    "gallery",
    "grid",
    "heat",
    "listing",
    "page",
    "palette",
    "section",
    "table",
    "verdict",
    "words",
]

COLORS = ("#2563eb", "#f59e0b", "#64748b", "#16a34a", "#dc2626")

Cell = str | tuple[str, str]  # plain text, or that and a smaller line below it

_STYLE = """
:root{--ink:#0f172a;--soft:#64748b;--line:#e2e8f0;--blue:#2563eb}
*{box-sizing:border-box}
body{margin:0;background:#f8fafc;color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1040px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px}
h2{font-size:20px;margin:0 0 4px}h1,h2{overflow-wrap:anywhere}
h3{font-size:15px;margin:14px 0 0}
p{margin:4px 0 12px}.soft{color:var(--soft)}
section{background:#fff;border:1px solid var(--line);border-radius:12px;padding:20px 22px;
 margin-top:20px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:14px;
 margin-top:20px}
.card{background:#fff;border:1px solid var(--line);border-radius:12px;padding:14px 14px}
.card b{display:block;font-size:24px;line-height:1.25;white-space:nowrap}
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
td small{display:block;color:var(--soft);font-size:11.5px}
.stack th,.stack td{padding:7px 6px;font-size:15px}.stack th{font-size:13px}
.stack .text,td.text{white-space:normal;overflow-wrap:anywhere;min-width:90px}
caption{text-align:left;color:var(--soft);font-size:14px;padding:4px 0}
.card.good{border-color:#86efac;background:#f0fdf4}.card.good b{color:#15803d}
.card.bad{border-color:#fca5a5;background:#fef2f2}.card.bad b{color:#b91c1c}
.verdict{border-left:6px solid #16a34a}.verdict.bad{border-left-color:#dc2626}
.drawings{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(380px,100%),1fr));
 gap:18px;margin-top:10px}
.drawings figure{margin:0;min-width:0}
.drawings figure:only-child{width:max(50% - 9px,min(380px,100%))}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr));
 gap:0 20px}
.beside dl{grid-template-columns:fit-content(50%) 1fr}
.drawings svg{width:100%;height:auto;display:block}
.drawings figcaption{font-size:14px;color:var(--soft);margin-bottom:2px}
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
details{margin-top:14px}summary{cursor:pointer;font-size:15px;font-weight:600}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:600px){main{padding:20px 10px 40px}section{padding:16px 8px}
 .card{padding:12px}.card b{font-size:21px}.cards{grid-template-columns:1fr 1fr;gap:10px}
 dl{grid-template-columns:1fr}dd{margin-bottom:6px}
 th,td{padding:6px 2px;font-size:11px}th{font-size:10px}th,.text{white-space:normal}
 td:first-child{overflow-wrap:anywhere;min-width:60px}
 .stack caption{display:block}.stack thead{display:none}
 .stack tr{display:block;padding:6px 0 10px;border-bottom:1px solid var(--line)}
 .stack td{display:flex;justify-content:space-between;gap:12px;border:0;padding:3px 4px;
  font-size:13px;text-align:right;white-space:normal}
 .stack td:first-child{font-weight:600;font-size:14px;text-align:left}
 .stack td[data-label]:not(:first-child)::before{content:attr(data-label);
  color:var(--soft);text-align:left;flex:0 1 auto;max-width:50%}
 .stack td,.stack td *{min-width:0;overflow-wrap:anywhere}
 .stack td small{display:inline;margin-left:6px;font-size:11px}}
@page{size:A4;margin:14mm 12mm}
@media print{body{background:#fff;font-size:10.5pt}main{max-width:none;padding:0}
 *{-webkit-print-color-adjust:exact;print-color-adjust:exact}
 section{padding:10px 14px;margin-top:12px}section.long{break-inside:auto}
 h2,h3,caption,thead,section>p.soft{break-after:avoid}tr,figure{break-inside:avoid}
 .cards{grid-template-columns:repeat(5,1fr);gap:8px}.card{padding:8px 10px}
 .card b{font-size:17px}.card span{font-size:9pt}.card,.beside{margin-top:10px}
 .beside{display:flex;gap:0 10px}.beside>*{flex:1}
 .wide{overflow:visible}th,td{padding:4px 5px;font-size:8.5pt}td small{font-size:7.5pt}
 .drawings{grid-template-columns:1fr 1fr;gap:10px}
 section,.card{break-inside:avoid}section.long{break-inside:auto}}
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


def cards(values: Mapping[str, str], *, kinds: Mapping[str, str] | None = None) -> str:
    """Show a few headline figures.

    Args:
        values: By what they are.
        kinds: Of some of them, by the same key: "good" or "bad".

    Returns:
        HTML.
    """
    known = kinds or {}
    inner = "".join(
        f'<div class="{" ".join(filter(None, ("card", known.get(name))))}">'
        f"<b>{escape(value)}</b><span>{escape(name)}</span></div>"
        for name, value in values.items()
    )
    return f'<div class="cards">{inner}</div>'


def section(title: str, text: str, *parts: str, long: bool = False) -> str:
    """Frame parts under a heading and a sentence of plain text.

    Args:
        title: The heading.
        text: The sentence.
        parts: HTML of the other functions.
        long: Whether it may be printed over several pages.

    Returns:
        HTML.
    """
    return (
        f"<section{' class=long' if long else ''}><h2>{escape(title)}</h2>"
        f'<p class="soft">{escape(text)}</p>{"".join(parts)}</section>'
    )


def beside(*parts: str) -> str:
    """Set short sections side by side where there is room."""
    return f'<div class="beside">{"".join(parts)}</div>' if any(parts) else ""


def folded(title: str, *parts: str) -> str:
    """Fold parts below a line of plain text that opens them."""
    return f"<details><summary>{escape(title)}</summary>{''.join(parts)}</details>"


def verdict(title: str, text: str, *parts: str, good: bool) -> str:
    """Frame parts as `section` does, with an edge in the colour of what was found."""
    kind = "verdict" if good else "verdict bad"
    return (
        f'<section class="{kind}"><h2>{escape(title)}</h2><p class="soft">{escape(text)}</p>'
        f"{''.join(parts)}</section>"
    )


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    text_columns: int = 1,
    best: Sequence[int] = (),
    caption: str = "",
    stack: bool = False,
) -> str:
    """Show rows of plain text.

    Args:
        columns: Their headings.
        rows: Their cells.
        text_columns: How many columns, from the left, hold words; the others hold numbers.
        best: Positions of rows that stand out.
        caption: What the table is, plain text.
        stack: Whether a narrow screen shows each row as a list, because it has many columns.

    Returns:
        HTML.
    """

    def cells(tag: str, texts: Sequence[Cell]) -> str:
        made = []
        for number, cell in enumerate(texts):
            kind = " class=text" if number < text_columns else ""
            if tag == "th":
                kind += ' scope="col"'
            elif stack:
                kind += f' data-label="{escape(columns[number])}"'
            text, small = (cell, "") if isinstance(cell, str) else cell
            below = f"<small>{escape(small)}</small>" if small else ""
            inner = f"<span>{escape(text)}{below}</span>" if stack else escape(text) + below
            made.append(f"<{tag}{kind}>{inner}</{tag}>")
        return "".join(made)

    head = cells("th", columns)
    body = "".join(
        f"<tr{' class=best' if number in best else ''}>{cells('td', row)}</tr>"
        for number, row in enumerate(rows)
    )
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide{" stack" if stack else ""}"><table>{said}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(values: Mapping[str, Any], title: str = "") -> str:
    """Show names and values, below a small heading; those that are None are left out."""
    inner = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in values.items()
        if value is not None
    )
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return f"{heading}<dl>{inner}</dl>"


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

    def on_figure(function: Any) -> Callable[[Figure], None]:
        return lambda figure: function(figure.subplots())

    svgs = [f"<div>{_svg(on_figure(function), 3.7)}</div>" for function in draw]
    return f'<div class="charts">{"".join(svgs)}</div>'


def can_draw() -> bool:
    """Say whether the package that draws charts is installed; a device may lack it."""
    return importlib.util.find_spec("matplotlib") is not None


def drawings(*draw: tuple[str, str, Callable[[Figure], None]], height: float = 3.7) -> str:
    """Draw figures side by side, each with a caption above it.

    Args:
        draw: For each its caption, what it shows for those who can't see it, and a function
            that draws on the matplotlib `Figure` it is given.
        height: Of each, in inches, where the width is 5.6.

    Returns:
        HTML with one SVG a figure.
    """
    made = []
    for caption, label, function in draw:
        svg = _svg(function, height).replace(
            "<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1
        )
        made.append(f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>")
    return f'<div class="drawings">{"".join(made)}</div>'


def _svg(draw: Callable[[Figure], None], height: float) -> str:
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
    with mpl.rc_context(style):
        figure = Figure(figsize=(5.6, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


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
