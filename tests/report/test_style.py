from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tokred
from tokred.report.style import KNOWN, line_style, marker_svg, style_of, styles_of, variant

# The report without the rest of the package, which takes long to import.
ALONE = f"import sys, types; t = types.ModuleType('tokred'); t.__path__ = [{str(Path(tokred.__path__[0]))!r}]; "
ALONE += "sys.modules['tokred'] = t\n"
OURS = [
    "none",
    "sta",
    "tome",
    "evit",
    "topk",
    "grid",
    "random_drop",
    "random_merge",
    "fewer_frames",
    "lower_resolution",
]


def test_the_projects_methods_differ_even_without_colour() -> None:
    markers = [style_of(name).marker for name in OURS]
    assert len(set(map(str, markers))) == len(OURS)
    assert len({(s.color, str(s.marker)) for s in KNOWN.values()}) == len(KNOWN)


def test_a_method_keeps_its_style_whatever_is_drawn_beside_it() -> None:
    plugins = [f"plugin_{i}" for i in range(8)]
    together = styles_of([*OURS, *plugins])
    assert all(together[name] == style_of(name) for name in OURS)
    assert styles_of([*plugins, *OURS]) == together
    assert styles_of(["mine"])["mine"] == style_of("mine") == style_of("Mine")


def test_unknown_methods_never_look_like_another_one() -> None:
    names = [f"plugin_{i}" for i in range(90)]
    looks = {(s.color, str(s.marker)) for s in styles_of([*OURS, *names]).values()}
    assert len(looks) == 100


def test_the_style_of_a_plug_in_is_the_same_in_every_process() -> None:
    code = ALONE + "from tokred.report.style import style_of; print(style_of('some_plug_in'))"
    for seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        assert out.strip() == str(style_of("some_plug_in"))


def test_every_colour_stands_out_from_the_white_plate() -> None:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    names = [*KNOWN, *(f"plugin_{i}" for i in range(90))]
    for style in styles_of(names).values():
        assert 1.05 / (luminance(style.color) + 0.05) >= 3.0, style


def test_variants_of_a_method_share_colour_and_marker() -> None:
    first, second = variant(style_of("sta"), 0), variant(style_of("sta"), 1)
    assert (first.color, first.marker) == (second.color, second.marker)
    assert first.fill != second.fill
    assert len({str(line_style(variant(style_of("sta"), i))) for i in range(6)}) == 6


def test_a_strangers_colour_is_none_of_ours() -> None:
    ours = {style.color for style in KNOWN.values()}
    assert not ours & {style_of(f"plugin_{i}").color for i in range(90)}


def test_the_marker_in_the_page_has_the_method_s_colour() -> None:
    for name in OURS:
        mark = marker_svg(style_of(name))
        assert f'fill="{style_of(name).color}"' in mark
        assert mark.count("<path") == 1


def test_importing_the_report_loads_no_drawing_library() -> None:
    code = ALONE + (
        "import sys, tokred.report, tokred.report.canvas, tokred.report.plots, tokred.report.style\n"
        "print([m for m in ('matplotlib', 'seaborn', 'pandas', 'rich') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "matplotlib" not in out
    assert "seaborn" not in out
    assert "pandas" not in out
