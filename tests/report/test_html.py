from __future__ import annotations

import copy
import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tokred.report.html import page

Results = dict[str, Any]
VOID = {"meta", "br", "path", "use", "link", "img"}


class Reader(HTMLParser):
    """Collects tags, attributes and text; notes what is closed in the wrong order."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "poster"):
                self.links.append(str(value))
            elif name == "id":
                self.ids.append(str(value))
            elif name.startswith("on"):
                self.handlers.append(name)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and "script" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_it_is_one_well_formed_document_that_needs_nothing_else(labelled_page: str) -> None:
    reader = Reader(labelled_page)
    assert reader.wrong == []
    assert reader.open == []
    assert all(link.startswith("#") for link in reader.links)
    assert len(set(reader.ids)) == len(reader.ids)
    assert not re.search(r"@import|url\((?!#)", labelled_page)
    assert "default-src 'none'" in html.unescape(labelled_page)
    assert reader.handlers == []


def test_it_holds_every_row_figure_definition_and_the_command(labelled_page: str, results: Results) -> None:
    reader = Reader(labelled_page)
    for row in results["rows"]:
        assert f'data-s="{row["gmac"]}"' in labelled_page
        assert row["label"] in reader.text
    assert labelled_page.count('<svg role="img"') == 4  # two pictures, each wide and tall
    for part in (
        "What the numbers mean",
        "Implied speed-up",
        "Wilson",
        "McNemar",
        "papers print this number as GFLOPs",
        "tokred compare --seed 0",
        "c0ffee12",
        "9b1d4e0c77aa",
        "AMD EPYC 9654",
    ):
        assert part in reader.text


def test_no_foreign_text_becomes_markup(unlabelled: Results) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'"
    unlabelled |= {"title": evil, "command": evil, "rows": unlabelled["rows"][:5]}
    unlabelled["data"] |= {"name": evil, "notes": [evil], "failures": [{"path": evil, "reason": evil}]}
    unlabelled["backbone"]["name"] = evil
    unlabelled["settings"][evil] = evil
    unlabelled["environment"]["processor"] = evil
    for row in unlabelled["rows"]:
        row |= {"label": evil, "reducer": evil, "notes": [evil]}
    unlabelled["rows"][3] |= {"status": "failed", "reason": evil}
    reader = Reader(page([unlabelled]))
    assert reader.wrong == []
    assert reader.handlers == []
    assert "x" not in reader.links
    assert reader.text.count("<script>alert(1)</script>") > 10


@pytest.mark.usefixtures("no_pictures")
def test_broken_files_are_listed_with_their_reason(unlabelled: Results) -> None:
    shown = page([unlabelled])
    text = Reader(shown).text
    assert "3 files could not be used" in text
    assert "data/clips/<b onmouseover=alert(1)>[red]x.mkv no video stream; found: audio (aac)" in text
    assert "\\x1b[2Jclear\\udcff.avi" in text
    shown.encode("utf-8")


@pytest.mark.usefixtures("no_pictures")
def test_refused_and_unfinished_rows_are_named(refused: Results, incomplete: Results) -> None:
    text = Reader(page([refused])).text
    assert "Without a result: 2 rows" in text
    assert "EViT-style at 50 %: EViT needs a class token" in text
    assert ">nan<" not in page([refused]).lower()
    assert "10 of 28 rows finished" in Reader(page([incomplete])).text


def test_a_run_with_nothing_finished_is_still_a_page() -> None:
    text = Reader(page([{"schema": 1, "rows": [{"method": "sta", "status": "pending"}]}])).text
    assert "No row is finished." in text
    assert "No picture" in text


def test_several_runs_share_one_page_and_say_where_they_differ(refused: Results) -> None:
    refused["rows"] = [r for r in refused["rows"] if r["method"] in ("none", "sta", "evit")]
    other = copy.deepcopy(refused)
    other["data"]["digest"] = "another"
    shown = page([refused, other], title="Two <runs>")
    reader = Reader(shown)
    assert reader.wrong == []
    assert len(set(reader.ids)) == len(reader.ids)
    assert {"#r1", "#r2"} <= set(reader.links)
    assert {"r1", "r2"} <= set(reader.ids)
    assert "Two <runs>" in reader.text
    assert "These runs differ in data" in reader.text
    assert reader.text.count("What the numbers mean") == 1


@pytest.mark.usefixtures("no_pictures")
def test_the_same_results_give_the_same_page(results: Results) -> None:
    results["rows"] = results["rows"][:2]
    assert page([results]) == page([copy.deepcopy(results)])


def test_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run, got none"):
        page([])


@pytest.mark.usefixtures("no_pictures")
def test_a_report_of_an_image_model_speaks_of_images(results: Results) -> None:
    results["data"] |= {"unit": "image", "name": "CIFAR-10"}
    results["title"] = "vit_nano on CIFAR-10"
    text = Reader(page([results])).text
    for part in ("images/s", "GMAC an image", "1,000 images of CIFAR-10", "on the same images"):
        assert part in text
    assert not re.search(r"\bclips?\b", text, re.IGNORECASE)
