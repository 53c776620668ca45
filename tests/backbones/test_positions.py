from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tokred.backbones.positions import resample, sincos_flat, sincos_grid
from tokred.tokens import Grid


def test_the_flat_table_is_the_formula_in_double_precision() -> None:
    table = sincos_flat(50, 6)
    for p in (0, 1, 17, 49):
        for j in range(6):
            angle = p / 10000 ** (2 * (j // 2) / 6)
            want = math.sin(angle) if j % 2 == 0 else math.cos(angle)
            assert table[0, p, j].item() == pytest.approx(want, abs=1e-7)


def test_the_flat_table_equals_the_original_bit_for_bit(shared: Path) -> None:
    golden = load_file(str(shared / "golden" / "backbones" / "videomae_sincos_table_1568x128.safetensors"))["table"]
    assert torch.equal(sincos_flat(*golden.shape)[0], golden)


def test_rows_of_the_flat_table_do_not_depend_on_their_number() -> None:
    assert torch.equal(sincos_flat(100, 8)[:, :30], sincos_flat(30, 8))


def test_tables_have_values_while_a_model_is_built_without_memory() -> None:
    with torch.device("meta"):
        assert not sincos_flat(4, 6).is_meta


@pytest.mark.parametrize("dim", [24, 96, 50])
def test_the_grid_table_is_separable_and_tells_all_places_apart(dim: int) -> None:
    grid = Grid(3, 4, 5)
    table = sincos_grid(grid, dim)
    assert table.shape == (1, 60, dim)
    cube = table.reshape(3, 4, 5, dim)
    third = 2 * (dim // 6)
    time, rows, columns = dim - 2 * third, third, third
    assert torch.equal(cube[..., :time], cube[:, :1, :1, :time].expand(3, 4, 5, time))
    assert torch.equal(cube[..., time : time + rows], cube[:1, :, :1, time : time + rows].expand(3, 4, 5, rows))
    assert torch.equal(cube[..., -columns:], cube[:1, :1, :, -columns:].expand(3, 4, 5, columns))
    distance = torch.cdist(table[0], table[0]) + 10 * torch.eye(60)
    assert distance.min() > 1e-2


def test_resampling_to_the_same_grid_is_the_same_table() -> None:
    table = torch.randn(1, 24, 3)
    assert resample(table, Grid(2, 3, 4), Grid(2, 3, 4)) is table


def test_space_is_resampled_bicubically_in_each_frame_alone() -> None:
    table = torch.randn(1, 2 * 3 * 3, 5)
    out = resample(table, Grid(2, 3, 3), Grid(2, 6, 5)).reshape(2, 6, 5, 5)
    for t in range(2):
        frame = table.reshape(2, 3, 3, 5)[t].permute(2, 0, 1)[None]
        want = torch.nn.functional.interpolate(frame, size=(6, 5), mode="bicubic", align_corners=False)
        assert torch.allclose(out[t], want[0].permute(1, 2, 0), atol=1e-6)


def test_time_is_resampled_linearly() -> None:
    ramp = torch.arange(4.0).reshape(1, 4, 1, 1).expand(1, 4, 6, 2).reshape(1, 24, 2)
    out = resample(ramp, Grid(4, 2, 3), Grid(8, 2, 3)).reshape(8, 6, 2)
    want = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    assert torch.allclose(out, want[:, None, None].expand(8, 6, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_resampling_keeps_the_precision(dtype: torch.dtype) -> None:
    assert resample(torch.ones(1, 4, 2, dtype=dtype), Grid(1, 2, 2), Grid(2, 3, 3)).dtype == dtype
