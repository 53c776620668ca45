"""Golden files of the video Swin made from torchvision's model: right ones pass, wrong ones fail and say where."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parity_files as files
import pytest
import torch
from torch import Tensor, nn

from tokred.run.parity import replay_file

Content = tuple[dict[str, Tensor], dict[str, Any]]


def official(name: str) -> str:
    """torchvision's name of a weight under the official one."""
    parts = name.split(".")
    if parts[0] == "features":
        stage, rest = divmod(int(parts[1]), 2)
        parts = ["layers", str(stage), "downsample" if rest else "blocks", *parts[2:]]
    name = ".".join(parts).replace("mlp.0", "mlp.fc1").replace("mlp.3", "mlp.fc2")
    return name.replace("head", "cls_head.fc_cls") if name.startswith("head") else f"backbone.{name}"


def end_to_end(
    *,
    patch: list[int],
    window: list[int],
    depths: list[int],
    heads: list[int],
    clips: tuple[int, ...],
    seed: int,
    index: bool = True,
    **config: Any,
) -> Content:
    """What the reference computes: weights, clips, every map and the logits."""
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    torch.manual_seed(seed)
    model = SwinTransformer3d(patch, 12, depths, heads, window, num_classes=6).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    tensors: dict[str, Tensor] = {"x": torch.randn(clips)}
    names: dict[nn.Module, str] = {model.patch_embed: "patch_embed", model.norm: "features"}
    for i, part in enumerate(model.features):
        if i % 2:
            names[part] = f"stage.{i // 2}.merged"
        else:
            names |= {block: f"stage.{i // 2}.block.{j}" for j, block in enumerate(part)}
    hooks = [
        module.register_forward_hook(lambda module, _, output: tensors.__setitem__(names[module], output))
        for module in names
    ]
    with torch.no_grad():
        tensors["logits"] = model(tensors["x"])
    for hook in hooks:
        hook.remove()
    volume = window[0] * window[1] * window[2]
    for name, tensor in model.state_dict().items():
        if name.endswith("relative_position_index"):
            if index:
                tensors[f"w.{official(name)}"] = tensor.view(volume, volume)
        else:
            tensors[f"w.{official(name)}"] = tensor
    sizes = {"patch_size": patch, "embed_dim": 12, "depths": depths, "num_heads": heads, "window_size": window}
    return tensors, {"kind": "VideoSwin end to end", "config": {**sizes, "num_classes": 6, **config}}


CASES: list[dict[str, Any]] = [
    {"patch": [2, 4, 4], "window": [2, 3, 3], "depths": [2, 2], "heads": [2, 4], "clips": (2, 3, 7, 42, 38)},
    {"patch": [1, 3, 5], "window": [4, 2, 5], "depths": [1, 2], "heads": [3, 3], "clips": (1, 3, 6, 30, 41)},
    {"patch": [2, 4, 4], "window": [8, 7, 7], "depths": [2, 1], "heads": [1, 2], "clips": (1, 3, 18, 20, 36)},
]


@pytest.mark.parametrize("case", CASES)
def test_what_torchvision_computes_passes(case: dict[str, Any], tmp_path: Path) -> None:
    for seed in (1, 2):
        tensors, metadata = end_to_end(**case, seed=seed, index=seed == 1, drop_path_rate=0.1, patch_norm=True)
        files.save(tmp_path / "a.safetensors", tensors, metadata)
        report = replay_file(tmp_path / "a.safetensors")
        assert report.status == "pass", report.line()
        for part in ("patch_embed", "stage.#.block.#", "stage.#.merged", "features", "logits"):
            assert part in report.detail


def off_by_little(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    tensors["stage.1.block.0"] = tensors["stage.1.block.0"] + 1e-3


def another_table(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    name = "w.backbone.layers.0.blocks.1.attn.relative_position_bias_table"
    tensors[name] = tensors[name].roll(1, 0)


def another_index(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    name = "w.backbone.layers.0.blocks.1.attn.relative_position_index"
    tensors[name] = tensors[name].roll(1, 0)


def more_heads(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    metadata["config"]["num_heads"] = [1, 4]


def other_patch(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    metadata["config"]["patch_size"] = [2, 4, 2]


def unknown_setting(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    metadata["config"]["cyclic"] = True


def unknown_tensor(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    tensors["stage.7.block.0"] = torch.zeros(1)


def no_scale(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    metadata["config"]["qk_scale"] = 1.0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (off_by_little, r"stage\.1\.block\.0 differs"),
        (another_table, r"stage\.0\.block\.1 differs"),
        (another_index, "is not the index of the window"),
        (more_heads, "num_heads"),
        (other_patch, "patch_size"),
        (unknown_setting, "cyclic"),
        (unknown_tensor, r"stage\.7\.block\.0"),
        (no_scale, "differs"),
    ],
)
def test_what_is_not_the_model_fails(
    spoil: Callable[[dict[str, Tensor], dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    tensors, metadata = end_to_end(**CASES[0], seed=1)
    spoil(tensors, metadata)
    files.save(tmp_path / "a.safetensors", tensors, metadata)
    report = replay_file(tmp_path / "a.safetensors")
    assert report.status == "fail"
    assert re.search(said, report.detail), report.line()


def masks(padded: list[int], window: list[int], shift: list[int]) -> Tensor:
    """Pairs of places that a shift brought together, window by window, by their distance before the roll."""
    (p, q, r), (t, h, w) = padded, window
    windows = []
    for first in [(a, b, c) for a in range(0, p, t) for b in range(0, q, h) for c in range(0, r, w)]:
        places = [(a, b, c) for a in range(t) for b in range(h) for c in range(w)]
        wrapped = torch.tensor(
            [
                [f + i + roll >= length for f, i, roll, length in zip(first, place, shift, padded, strict=True)]
                for place in places
            ]
        )
        windows.append((wrapped[:, None] != wrapped[None]).any(-1).long())
    return torch.stack(windows)


@pytest.mark.parametrize(
    ("padded", "window", "shift"),
    [
        ([4, 8, 8], [2, 4, 4], [1, 2, 2]),
        ([2, 6, 9], [2, 3, 3], [0, 1, 1]),
        ([4, 4, 8], [2, 4, 4], [1, 0, 2]),
        ([6, 4, 4], [3, 4, 4], [1, 0, 0]),
    ],
)
def test_masks_and_indices(padded: list[int], window: list[int], shift: list[int], tmp_path: Path) -> None:
    settings = {"kind": "relative position index and shifted-window mask"}
    settings |= {"padded_size": padded, "window": window, "shift": shift}  # type: ignore[dict-item]
    right = masks(padded, window, shift)
    files.save(tmp_path / "a.safetensors", {"mask": right}, settings)
    assert replay_file(tmp_path / "a.safetensors").status == "pass"
    right[-1, 0, 1] ^= 1
    files.save(tmp_path / "a.safetensors", {"mask": right}, settings)
    report = replay_file(tmp_path / "a.safetensors")
    assert report.status == "fail"
    assert "mask: 1 of" in report.detail


def test_a_shift_that_does_not_fit_is_told(tmp_path: Path) -> None:
    settings = {"kind": "relative position index and shifted-window mask"}
    settings |= {"padded_size": [4, 8, 7], "window": [2, 4, 4], "shift": [1, 2, 2]}  # type: ignore[dict-item]
    files.save(tmp_path / "a.safetensors", {"mask": torch.zeros(8, 32, 32, dtype=torch.int64)}, settings)
    assert "whole windows" in replay_file(tmp_path / "a.safetensors").detail


def inflation(window: list[int], flat: int) -> Content:
    """A 2-D file and its 3-D one, by loops."""
    torch.manual_seed(3)
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    table = torch.randn((2 * flat - 1) ** 2, 2)
    kernel = torch.randn(4, 3, 4, 4)
    square = table.t().reshape(1, 2, 2 * flat - 1, 2 * flat - 1)
    size = (2 * window[1] - 1, 2 * window[2] - 1)
    if size != (2 * flat - 1, 2 * flat - 1):
        square = nn.functional.interpolate(square, size=size, mode="bicubic")
    plane = square.reshape(2, -1).t()
    tensors = {
        f"in.{name}": table,
        "in.patch_embed.proj.weight": kernel,
        "in.layers.0.blocks.0.norm1.weight": torch.ones(4),
        f"out.{name}": torch.cat([plane] * (2 * window[0] - 1)),
        "out.patch_embed.proj.weight": torch.stack([kernel / 2] * 2, dim=2),
        "out.layers.0.blocks.0.norm1.weight": torch.ones(4),
    }
    settings = {"kind": "inflate a 2D Swin state_dict", "window3d": window, "window2d": flat}
    return tensors, {**settings, "patch": [2, 4, 4], "depths": [1], "heads": [2], "embed_dim": 4}


@pytest.mark.parametrize(("window", "flat"), [([3, 4, 4], 4), ([8, 7, 7], 7), ([2, 7, 7], 4), ([2, 3, 5], 4)])
def test_inflation(window: list[int], flat: int, tmp_path: Path) -> None:
    tensors, metadata = inflation(window, flat)
    files.save(tmp_path / "a.safetensors", tensors, metadata)
    report = replay_file(tmp_path / "a.safetensors")
    assert report.status == "pass", report.line()
    del tensors["out.layers.0.blocks.0.norm1.weight"]
    files.save(tmp_path / "a.safetensors", tensors, metadata)
    assert "names" in replay_file(tmp_path / "a.safetensors").detail
