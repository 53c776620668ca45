from __future__ import annotations

import pytest

from tokred.report import text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines", "two\\x0alines"),
        ("\udcff.avi", "\\udcff.avi"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("視頻 é.mkv", "視頻 é.mkv"),
    ],
)
def test_foreign_text_is_shown_and_does_nothing(given: str, shown: str) -> None:
    assert text.clean(given) == shown
    text.clean(given).encode("utf-8")


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), "12", True])
def test_what_is_no_number_is_a_dash(missing: object) -> None:
    assert text.number(missing) is None
    assert text.fixed(missing) == text.percent(missing) == text.significant(missing) == text.count(missing) == "–"
    assert text.interval(missing, 1.0) is None
    assert text.p_value(missing) is None


def test_a_loss_that_rounds_to_nothing_has_no_sign() -> None:
    assert text.percent(-0.0001, sign=True) == "0.0"
    assert text.percent(-0.012, sign=True) == "-1.2"
    assert text.percent(0.012, sign=True) == "+1.2"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1.2345, "1.23"), (0.0312, "0.0312"), (180.5, "180"), (1205.4, "1205"), (0.0000123, "1.2e-05")],
)
def test_three_digits_whatever_the_magnitude(value: float, shown: str) -> None:
    assert text.significant(value) == shown


@pytest.mark.parametrize(("p", "shown"), [(0.0004, "p<0.001"), (0.031, "p=0.031"), (0.0999, "p=0.10"), (1.0, "p=1.00")])
def test_p_values(p: float, shown: str) -> None:
    assert text.p_value(p) == shown


def test_small_words() -> None:
    assert text.plural(1, "file") == "1 file"
    assert text.plural(1200, "file") == "1,200 files"
    assert text.join(["a", "b", "c"]) == "a, b and c"
    assert text.join([]) == ""
    assert text.shorten("abcdef", 4) == "abc…"
    assert text.shorten("abcd", 4) == "abcd"


def test_texts_about_clips_become_texts_about_images() -> None:
    assert (
        text.in_units("Clips/s, clips, GMAC a clip, on 3 clips", "image")
        == "Images/s, images, GMAC an image, on 3 images"
    )
    assert text.in_units("a paperclip clipped", "image") == "a paperclip clipped"
    assert text.in_units("Clips", "clip") == "Clips"
