from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tokred.report.assets import CSS, JS

PROBE = """<iframe id=f src="report.html" style="width:WIDTHpx;height:800px;border:0"></iframe><pre id=o></pre><script>
f.onload = () => {
  const d = f.contentDocument, w = f.contentWindow;
  const names = () => [...d.querySelectorAll("tbody:nth-of-type(3) tr:not(.group) th")].map(t => t.textContent);
  const before = names();
  d.querySelector("thead button").click();
  const shown = s => w.getComputedStyle(d.querySelector(s)).display !== "none";
  o.textContent = "RESULT" + JSON.stringify({page: d.documentElement.scrollWidth, window: w.innerWidth, before,
    after: names(), wide: shown(".wide"), tall: shown(".tall"), first: d.querySelector("tbody th").textContent,
    sort: d.querySelector("[aria-sort]").getAttribute("aria-sort")}) + "END";
};
</script>"""


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert not re.search(r"https?:|@import|url\(", CSS + JS)
    assert "</" not in CSS + JS


def test_it_knows_phones_paper_and_the_dark() -> None:
    for part in ("@media (max-width: 640px)", "@media print", "size: A4", "prefers-color-scheme: dark"):
        assert part in CSS
    assert CSS.count("{") == CSS.count("}")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "tall"), [(390, True), (1280, False)])
def test_in_a_browser_it_fits_the_window_and_sorts(labelled_page: str, tmp_path: Path, width: int, tall: bool) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    (tmp_path / "report.html").write_text(labelled_page, encoding="utf-8")
    (tmp_path / "probe.html").write_text(PROBE.replace("WIDTH", str(width)), encoding="utf-8")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, (tmp_path / "probe.html").as_uri()], capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"Chromium does not start here: {done.stderr.strip()[-200:]}")
    found = re.search(r'RESULT(\{"page.*?\})END', done.stdout)
    assert found, done.stdout[-500:]
    seen = json.loads(html.unescape(found[1]))
    assert seen["page"] <= seen["window"] == width
    assert (seen["tall"], seen["wide"]) == (tall, not tall)
    assert seen["before"][0] == "STA"
    assert seen["after"] == sorted(seen["before"], key=str.casefold)
    assert seen["first"] == "Unreduced"
    assert seen["sort"] == "ascending"
