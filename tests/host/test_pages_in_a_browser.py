# SPDX-License-Identifier: Apache-2.0
"""Pages of reports in a real browser: nothing is loaded, nothing sticks out, they print."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_imprint import bench_page, compare_page
from edge_imprint_runtime.reporting.compare import compare_reports
from edge_imprint_runtime.reporting.schema import read_report, write_report
from tests.report_example import example_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
Browse = Callable[..., str]

# Put into a copy of the page: what it would load is forbidden, and each attempt is counted.
WATCH = """
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<script>window.refused = 0;
document.addEventListener('securitypolicyviolation', () => { window.refused += 1; });</script>
"""
# The page in a frame as wide as a screen; the answer is left in the outer page's title.
OUTER = """<!doctype html><html><head><title>-</title></head><body>
<iframe src="page.html" style="width:WIDTHpx;height:900px;border:0"></iframe><script>
addEventListener('load', () => {
 const inner = document.querySelector('iframe').contentWindow, root = inner.document;
 const page = root.documentElement, out = [];
 for (const part of root.querySelectorAll('h1,h2,p,.card,figure,dl,li,section,.wide'))
  if (part.getBoundingClientRect().right > WIDTH + 0.5
    || part.scrollWidth > part.clientWidth + 1) out.push(part.textContent.slice(0, 60));
 document.title = JSON.stringify({
  width: page.clientWidth, scroll: page.scrollWidth, out: out,
  refused: inner.refused, loaded: inner.performance.getEntriesByType('resource').length,
  shown: [...root.querySelectorAll('svg')].every(
   svg => svg.getBoundingClientRect().width > 200),
  charts: root.querySelectorAll('svg').length});
});</script></body></html>
"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Browse:
    """Return ``browse(*arguments)``: Chromium without a window or a network; its stdout."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    profile = tmp_path_factory.mktemp("profile")

    def browse(*arguments: str) -> str:
        done = subprocess.run(
            [
                program,
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                "--host-resolver-rules=MAP * ~NOTFOUND",
                "--allow-file-access-from-files",
                f"--user-data-dir={profile}",
                *arguments,
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        return done.stdout

    return browse


@pytest.fixture(scope="module", params=["report", "comparison"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on disk, with a copy in which all that it would load is refused and counted."""
    root = tmp_path_factory.mktemp("pages")
    long = "jetson-orin-nano-super-maxn-super-tensorrt-10.3-fp16-batch-8-" * 3
    first = example_report(1_500, stable=False, label="the base")
    first["machine"]["a_fact_" + "of_many_words_" * 8] = "x" * 200
    first["engine"] = {
        "tensorrt": "10.3.0.30",
        "gpu_name": "Orin",
        "compute_capability": "8.7",
        "driver": None,
        "cuda": "12.6",
        "precision": "fp16",
        "build_s": 431.0,
        "inspector": [
            {"Name": long, "LayerType": "CaskConvolution", "Precision": "Half"},
            {"Name": "scores", "TacticName": "sm80_xmma_fprop_implicit_gemm_f16" * 4},
        ],
    }
    first["layers"][0]["name"] = "/backbone/" + "layer4/block/" * 12 + "Conv"
    reports = [
        read_report(write_report(root / f"{i}.json", made))
        for i, made in enumerate((first, example_report(500, 1.7, seed=1, label=long)))
    ]
    text = bench_page.render(reports[0]).replace("<details>", "<details open>")
    if request.param == "comparison":
        text = compare_page.render(compare_reports(reports, force=True))
    (root / "whole.html").write_text(text)
    (root / "page.html").write_text(text.replace("<head>", f"<head>{WATCH}", 1))
    return root / "whole.html"


@pytest.mark.parametrize("width", [400, 1200])
def test_it_fits_and_loads_nothing(page: Path, browse: Browse, width: int) -> None:
    outer = page.with_name("outer.html")
    outer.write_text(OUTER.replace("WIDTH", str(width)))
    shown = browse("--dump-dom", "--virtual-time-budget=5000", outer.as_uri())
    title = re.search(r"<title>(.*)</title>", shown)
    assert title is not None
    found = json.loads(
        title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    )
    assert found["charts"] > 5
    assert found == {
        "width": width,
        "scroll": width,
        "out": [],
        "refused": 0,
        "loaded": 0,
        "shown": True,
        "charts": found["charts"],
    }


def test_the_watch_sees_what_a_page_loads(page: Path, browse: Browse) -> None:
    """The test above can fail: a picture from elsewhere and a wide table are found."""
    other = page.with_name("bad")
    other.mkdir(exist_ok=True)
    bad = '<img src="https://example.org/x.png"><p style="width:900px">wide</p>'
    (other / "page.html").write_text(f"<html><head>{WATCH}</head><body>{bad}</body></html>")
    (other / "outer.html").write_text(OUTER.replace("WIDTH", "400"))
    shown = browse("--dump-dom", "--virtual-time-budget=5000", (other / "outer.html").as_uri())
    assert '"refused":1' in shown
    assert '"out":["wide"]' in shown


def test_it_prints(page: Path, browse: Browse) -> None:
    out = page.with_suffix(".pdf")
    browse("--no-pdf-header-footer", f"--print-to-pdf={out}", page.as_uri())
    data = out.read_bytes()
    assert data.startswith(b"%PDF-")
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    assert 2 <= pages <= 14
    (box,) = set(re.findall(rb"/MediaBox\s*\[([^]]*)\]", data))
    width, height = (float(side) for side in box.split()[2:])
    assert (round(width), round(height)) == (595, 842)  # A4 in points


def test_it_draws(page: Path, browse: Browse) -> None:
    from PIL import Image

    out = page.with_suffix(".png")
    browse("--window-size=1200,2000", f"--screenshot={out}", page.as_uri())
    with Image.open(out) as image:
        assert image.size == (1200, 2000)
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 50
