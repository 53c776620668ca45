"""The page of several runs in a real browser: on a phone, on a desktop, with a keyboard, and on paper."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sweeps import curves, over_depth, row, sweep

from tokred.report import render

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Starting the browser and drawing the page take longer than every test: one process does it once.
pytestmark = pytest.mark.xdist_group("browser")

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WINDOWS = {"phone": (390, 844), "desktop": (1280, 800)}
PATIENCE = 120_000  # ms; a loaded machine is not a failure


def strengths() -> dict[str, Any]:
    """A sweep whose columns hold what is hard to sort: signs, stars, words among numbers, numbers in words."""
    rows = [row({"reducer.r": r}, value) for r, value in ((16, 0.90), (8, 0.955), (4, 0.85), (32, 0.945))]
    for found, p in zip(rows, (0.01, 0.5, 0.001, 0.9), strict=True):
        found["accuracy"]["motion"]["p"] = p
    rows.append({**row({"reducer.r": 2}, 0.9), "status": "failed", "reason": "out of memory", "accuracy": {}})
    known = sweep()["effects"][0]
    verdicts = ((0.2, "same sign"), (0.0001, "contradicts"), (0.001, "not resolved"), (0.04, "same sign"))
    effects = [{**known, "p": p, "verdict": verdict} for p, verdict in verdicts]
    return sweep(title="Strengths", rows=rows, effects=effects, axes=[["reducer.r"]])


def seeded() -> dict[str, Any]:
    """Curves over depth of points with long names, with two seeds each."""
    found = over_depth()
    rows = []
    for seed in (0, 1):
        for one in found["rows"]:
            spec = "none" if one["method"] == "none" else "sta:order=FBF,similarity=query,score=activation"
            rows.append({**one, "point": {"reducer": spec, "seed": seed}})
    return {**found, "rows": rows, "seeds": [0, 1]}


@pytest.fixture(scope="module")
def report(make: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sweeps and a comparison on one page."""
    compared = make(budgets=(0.75, 0.5))
    compared["rows"] = [r for r in compared["rows"] if r["method"] in ("none", "sta", "tome", "grid")]
    runs = [strengths(), curves(), seeded(), compared]
    return render(runs, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium on this machine, under none of the names {', '.join(NAMES)}")
    api = pytest.importorskip("playwright.sync_api", reason="Playwright, which drives the browser, is not installed")
    with api.sync_playwright() as driver:
        try:
            started = driver.chromium.launch(executable_path=program, args=FLAGS, timeout=PATIENCE)
        except api.Error as error:
            pytest.skip(f"{program} does not start here: {str(error).splitlines()[0]}")
        yield started
        started.close()


class Seen:
    """A page, and what the browser had to say about it."""

    def __init__(self, browser: Browser, report: Path, window: str) -> None:
        width, height = WINDOWS[window]
        self.page: Page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    def column(self, table: str, head: str) -> list[str]:
        """The first line of every cell below a heading, group lines left out."""
        script = """([table, head]) => {
            const found = document.querySelector(table), heads = [...found.tHead.rows[0].cells];
            const i = heads.findIndex(h => h.innerText.trim().replace("\\n", " ") === head);
            return [...found.querySelectorAll("tbody tr:not(.group)")].map(r => r.cells[i].innerText.split("\\n")[0]);
        }"""
        return [text.replace("\u2212", "-").strip() for text in self.page.evaluate(script, [table, head])]

    def sort(self, table: str, head: str, order: str) -> list[str]:
        """Click on a heading until it says that it is sorted this way (twice at most), and read the column."""
        heading = (
            self.page.locator(f"{table} thead th").filter(has_text=re.compile(rf"^\s*{re.escape(head)}\s*$")).first
        )
        for _ in range(2):
            heading.locator("button").click()
            if heading.get_attribute("aria-sort") == order:
                return self.column(table, head)
        raise AssertionError(f"two clicks on {head} did not sort {order}")


@pytest.fixture(scope="module", params=list(WINDOWS))
def seen(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Seen]:
    found = Seen(browser, report, request.param)
    yield found
    found.page.close()


POINTS, EFFECTS, RESULTS = (f"[aria-labelledby={name}] table" for name in ("r1-points", "r1-effects", "r4-results"))


def test_it_loads_nothing_else_and_the_browser_has_no_complaint(seen: Seen, report: Path) -> None:
    assert seen.requests == [report.as_uri()]
    assert seen.complaints == []
    assert seen.page.evaluate("document.documentElement.classList.contains('js')"), "the policy let its script run"


def test_its_policy_lets_no_other_script_run(browser: Browser, report: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.html"
    text = report.read_text(encoding="utf-8")
    evil.write_text(text.replace("</main>", "<script>window.evil = 1</script></main>"), encoding="utf-8")
    found = Seen(browser, evil, "desktop")
    assert found.page.evaluate("window.evil === undefined")
    assert "Content Security Policy" in found.complaints[0]
    found.page.close()


def test_nothing_is_wider_than_the_window_but_tables_in_their_frames(seen: Seen) -> None:
    wide = """() => [...document.querySelectorAll("main *")].filter(x => !x.closest(".scroll, svg")
        && x.getBoundingClientRect().right > innerWidth + 0.5).map(x => x.outerHTML.slice(0, 80))"""
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen.page.evaluate(wide) == []
    # Every table can be brought to its last column inside its frame, and its first column stays in sight.
    ends = """() => [...document.querySelectorAll(".scroll")].map(frame => {
        frame.scrollLeft = 1e6;
        const head = frame.querySelector("thead tr"), edge = frame.getBoundingClientRect();
        const last = head.lastElementChild.getBoundingClientRect(), first = head.firstElementChild;
        const kept = first.getBoundingClientRect().left;
        frame.scrollLeft = 0;
        return last.right <= edge.right + 1 && kept >= edge.left - 1;
    })"""
    assert seen.page.evaluate(ends) == [True] * 6


def test_a_table_that_is_wider_than_its_frame_says_that_it_scrolls(seen: Seen) -> None:
    # What says so is told by an observer, which speaks before the next picture.
    seen.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    said = """() => [...document.querySelectorAll(".scroll")].map(frame => [
        frame.scrollWidth > frame.clientWidth + 1,
        frame.previousElementSibling.getBoundingClientRect().height > 0
            && frame.previousElementSibling.innerText.includes("scrolls sideways")])"""
    found = seen.page.evaluate(said)
    assert all(wider == told for wider, told in found)
    phone = seen.page.viewport_size == {"width": 390, "height": 844}
    assert not phone or all(told for _, told in found)


def test_without_scripts_a_phone_is_told_anyway(browser: Browser, report: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri(), timeout=PATIENCE)
    assert page.locator(".swipe").first.is_visible()
    context.close()


def test_names_of_two_seeds_are_read_whole_and_on_a_desktop_on_two_lines_at_most(seen: Seen) -> None:
    lines = """() => [...document.querySelectorAll("[aria-labelledby=r3-points] tbody th > span > span")].map(x => {
        const frame = x.closest(".scroll").getBoundingClientRect(), box = x.getBoundingClientRect();
        return [x.innerText, box.height / parseFloat(getComputedStyle(x).lineHeight),
            box.left >= frame.left && box.right <= frame.right && x.scrollWidth <= x.clientWidth + 1];
    })"""
    found = seen.page.evaluate(lines)
    spec = "sta:order=FBF,similarity=query,score=activation"
    assert [name for name, *_ in found] == ["none, seed=0", f"{spec}, seed=0", "none, seed=1", f"{spec}, seed=1"]
    assert all(inside for *_, inside in found)
    if seen.page.viewport_size == {"width": 1280, "height": 800}:
        assert max(height for _, height, _ in found) < 2.5


def test_verdicts_lead_to_their_tables(seen: Seen) -> None:
    top = "Math.abs(document.querySelector('#r1-effects').getBoundingClientRect().top) < 5"
    for link in (seen.page.locator("[aria-labelledby=verdicts] a"), seen.page.locator(".against a")):
        assert link.count() == 1
        seen.page.evaluate("scrollTo(0, 0)")
        link.click()
        assert seen.page.evaluate(top)
    assert seen.column("[aria-labelledby=verdicts] table", "✗ contradicts") == ["1"]


def test_no_cell_runs_into_the_next(seen: Seen) -> None:
    # A mark beside the digits hangs over on purpose, so that they stay aligned.
    over = """() => [...document.querySelectorAll("td, th")].filter(x => x.scrollWidth > x.clientWidth + 1
        && !x.closest(".group") && !x.querySelector("i")).map(x => x.innerText)"""
    assert seen.page.evaluate(over) == []


@pytest.mark.parametrize(
    ("table", "head", "ascending"),
    [
        (POINTS, "diff", ["-10.0", "-5.0*", "-0.5", "+0.5", "–"]),
        (POINTS, "motion %", ["85.0", "90.0", "94.5", "95.5", "–"]),
        (POINTS, "point", ["r=2", "r=4", "r=8", "r=16", "r=32"]),
        (POINTS, "GMAC", ["0.490", "0.490", "0.490", "0.490", "failed"]),
        (EFFECTS, "p", ["p<0.001", "p=0.001", "p=0.040", "p=0.20"]),
        (EFFECTS, "verdict", ["? not resolved", "✓ same sign", "✓ same sign", "✗ contradicts"]),
    ],
)
def test_a_heading_sorts_by_numbers_or_words_both_ways(seen: Seen, table: str, head: str, ascending: list[str]) -> None:
    if head == "diff":
        ascending = ["-10.0*", *ascending[1:]]
    without = [text for text in ascending if text not in ("–", "failed")]
    if head != "verdict":
        assert seen.sort(table, head, "ascending") == ascending
    else:
        ascending = without = seen.sort(table, head, "ascending")
        assert [text[2:] for text in ascending].count("same sign") == 2
        assert abs(ascending.index("✓ same sign") - ascending[::-1].index("✓ same sign")) <= 2
    # What has no number stays last.
    assert seen.sort(table, head, "descending") == without[::-1] + ascending[len(without) :]
    assert seen.page.locator(f"{table} [aria-sort]").count() == 1


def test_a_comparison_is_sorted_inside_each_budget(seen: Seen) -> None:
    names = seen.sort(RESULTS, "method", "ascending")
    assert names[0] == "Unreduced"
    for group in (names[1:4], names[4:]):
        assert group == sorted(group, key=str.casefold)
    groups = seen.page.locator(f"{RESULTS} tr.group")
    assert groups.count() == 2
    assert groups.evaluate_all("all => all.every(g => g === g.parentElement.rows[0])")


def test_pictures_are_drawn_for_the_width(seen: Seen) -> None:
    shown = "css => [...document.querySelectorAll(css)].map(x => x.getBoundingClientRect().width > 0)"
    phone = seen.page.viewport_size == {"width": 390, "height": 844}
    wide, tall = seen.page.evaluate(shown, ".wide"), seen.page.evaluate(shown, ".tall")
    assert len(wide) == len(tall) >= 5
    assert (set(wide), set(tall)) == ({not phone}, {phone})


def test_anchors_lead_to_their_sections_and_headings_have_an_order(seen: Seen) -> None:
    links = seen.page.locator("nav a")
    assert links.count() == 4
    links.nth(3).click()
    assert seen.page.evaluate("Math.abs(document.querySelector('#r4').getBoundingClientRect().top) < 5")
    assert seen.page.url.endswith("#r4")
    levels = seen.page.locator("h1, h2, h3").evaluate_all("all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert seen.page.evaluate("[...document.querySelectorAll('[aria-labelledby]')].every(x => "
                              "document.getElementById(x.getAttribute('aria-labelledby')))")  # fmt: skip


def test_the_keyboard_reaches_tables_and_headings(seen: Seen) -> None:
    page = seen.page
    page.locator("nav a").last.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-labelledby')") == "r1-points"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "share"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('th').hasAttribute('aria-sort')")


def test_on_paper_no_table_is_cut_off(browser: Browser, report: Path, tmp_path: Path) -> None:
    found = Seen(browser, report, "desktop")
    file = tmp_path / "report.pdf"
    found.page.pdf(path=file, prefer_css_page_size=True)
    found.page.close()
    assert 6 <= len(re.findall(rb"/Type\s*/Page\b", file.read_bytes())) <= 14
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (poppler-utils) is not on this machine: the words on paper were not read")
    boxes = ["pdftotext", "-bbox", str(file), "-"]
    pages = subprocess.run(boxes, capture_output=True, text=True, check=True).stdout.split("<page ")[1:]
    words = []
    for one in pages:
        width = float(re.findall(r'width="([\d.]+)"', one)[0])
        for right, word in re.findall(r'<word .*?xMax="([\d.]+)".*?>(.*?)</word>', one):
            assert float(right) < width, f"{word} is cut off"
            words.append(word)
    text = " ".join(words)
    # The last columns of the five tables, and a word of a note below each.
    for last in ("full-size GMAC", "verdict", "contradicts", "tokens", "note"):
        assert last in text
    assert text.count("308.7") >= 4 + 8 + 2
