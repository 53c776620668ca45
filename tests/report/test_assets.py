from __future__ import annotations

import re

from tokred.report.assets import CSS, JS


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert not re.search(r"https?:|@import|url\(", CSS + JS)
    assert "</" not in CSS + JS


def test_it_knows_phones_paper_and_the_dark() -> None:
    for part in ("@media (max-width: 640px)", "@media print", "size: A4", "prefers-color-scheme: dark"):
        assert part in CSS
    assert CSS.count("{") == CSS.count("}")
