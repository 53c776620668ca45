from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib.image
import pytest

from tokred.report import canvas, plots

Results = dict[str, Any]


def test_a_png_is_1600_pixels_wide_and_not_empty(make: Callable[..., Results]) -> None:
    figure = plots.quality(make(budgets=(0.5,)))
    assert figure is not None
    data = canvas.png(figure)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    image = matplotlib.image.imread(io.BytesIO(data))
    assert image.shape[1] == 1600
    assert 600 <= image.shape[0] <= 1200
    assert image[..., :3].std() > 0.05


@pytest.fixture(scope="module")
def drawing() -> str:
    figure = canvas.new_figure("tall", 2.0)
    figure.subplots().plot([0, 1], [0, 1], marker="o", label="$x <b>")
    return canvas.svg(figure, "r1q", 'a <script> "quoted"')


def test_an_svg_stands_alone_and_carries_its_description(drawing: str) -> None:
    root = ElementTree.fromstring(drawing)
    assert root.get("aria-label") == 'a <script> "quoted"'
    assert "<script" not in drawing
    assert "metadata" not in drawing
    assert not re.search(r'(?:href|src)="(?!#)', drawing)


def test_ids_are_its_own_and_resolve(drawing: str) -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', drawing))
    assert all(i.startswith("r1q-") for i in ids)
    assert set(re.findall(r'href="#([^"]+)"', drawing)) | set(re.findall(r"url\(#([^)]+)\)", drawing)) <= ids


def test_the_same_figure_is_the_same_text(drawing: str) -> None:
    figure = canvas.new_figure("tall", 2.0)
    figure.subplots().plot([0, 1], [0, 1], marker="o", label="$x <b>")
    assert canvas.svg(figure, "r1q", 'a <script> "quoted"') == drawing


def test_panels_have_room_for_their_titles() -> None:
    assert [canvas.arranged(n, "wide") for n in (1, 3, 4, 5, 7)] == [(1, 1), (1, 3), (2, 2), (2, 3), (3, 3)]
    assert canvas.arranged(4, "tall") == (4, 1)
