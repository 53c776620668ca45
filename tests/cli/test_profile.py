"""``tokred profile`` gives the published counts without running a model."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

Call = Callable[..., tuple[int, str, str]]

# STA paper's settings, counted with fvcore on the official code (GMAC), r = 0, 16, 32, 48, 64, 80, 96.
PUBLISHED = {
    "small": (56.95, 49.15, 41.81, 35.03, 28.80, 23.14, 18.04),
    "base": (180.49, 157.90, 136.32, 115.86, 96.53, 78.31, 61.21),
    "large": (597.22, 520.40, 446.66, 376.11, 308.74, 244.56, 183.56),
    "huge": (1191.64, 1038.46, 890.65, 748.33, 611.49, 480.14, 354.28),
}
CASES = [(size, 16 * i, gmac) for size, row in PUBLISHED.items() for i, gmac in enumerate(row)]


@pytest.mark.parametrize(("size", "r", "gmac"), CASES)
def test_the_28_measured_counts_of_sta(tokred: Call, size: str, r: int, gmac: float) -> None:
    status, out, _ = tokred("profile", "--backbone", f"videomae_vit_{size}", "--reducer", f"sta:r={r}", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["total_macs"] / 1e9 == pytest.approx(gmac, abs=0.01)
    assert found["total_flops"] == 2 * found["total_macs"]


def test_the_table_shows_every_block(tokred: Call) -> None:
    status, out, _ = tokred("profile", "--reducer", "sta:r=16")
    assert status == 0
    assert "implied speed-up" in out
    assert "512" in out
    blocks = [line for line in out.splitlines() if line.split() and line.split()[0].isdecimal()]
    assert [int(line.split()[0]) for line in blocks] == list(range(9))


def test_a_budget_is_solved(tokred: Call) -> None:
    status, out, _ = tokred("profile", "--reducer", "tome", "--budget", "0.5", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["share"] == pytest.approx(0.5, abs=0.02)
    assert found["reducer"].startswith("tome:r=")


def test_time_and_memory_on_request(tokred: Call) -> None:
    status, out, _ = tokred("profile", "--reducer", "sta:r=16", "--time", "--json")
    assert status == 0
    measured = json.loads(out)["measured"]
    assert measured["reduced_ms"] > 0
    assert measured["speedup_low"] <= measured["speedup"] <= measured["speedup_high"]
    assert all(size > 0 for size in measured["peak_bytes"].values())


def test_an_image_model_is_counted_for_one_image(tokred: Call) -> None:
    status, out, _ = tokred("profile", "--backbone", "vit_nano", "--reducer", "evit:keep=0.7")
    assert status == 0
    assert "vit_nano with evit:keep=0.7, one image (1, 3, 32, 32)" in out
