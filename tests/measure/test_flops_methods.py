"""Three counters agree on every backbone with every method: the closed form, fvcore and torch's own."""

from __future__ import annotations

import pytest
import torch

import tokred
from tokred import list_methods
from tokred.backbones.videomae import VideoViT
from tokred.dry import dry_run
from tokred.measure.flops import count
from tokred.measure.handles import fvcore_macs, torch_macs
from tokred.testing import default_backbones

SETTINGS = {
    "none": "none",
    "sta": "sta:r=3",
    "sta_window": "sta_window:r=(4,3)",
    "tome": "tome:r=4",
    "evit": "evit:keep=0.6",
    "eventful": "eventful:r=5",
    "vid_tldr": "vid_tldr:r=4",
    "topk": "topk:keep=0.6",
    "random_drop": "random_drop:keep=0.6",
    "random_merge": "random_merge:keep=0.6",
    "grid": "grid:keep=0.6",
    "ats": "ats:keep=0.8",
    "dynamicvit": "dynamicvit:keep=0.7",
    "stts": "stts:keep=0.5",
    "stts_heuristic": "stts_heuristic:keep=0.5",
    "stvit": "stvit:side=2",
    "stvit_r": "stvit_r:side=2",
    "fewer_frames": "fewer_frames:tubelets=2",
    "lower_resolution": "lower_resolution:rows=3",
}


def test_every_method_is_counted_here() -> None:
    assert set(SETTINGS) == set(list_methods()), "a new method needs a line here"


def video() -> tuple[torch.nn.Module, torch.Tensor]:
    model = VideoViT(img_size=32, patch_size=8, frames=8, dim=48, depth=4, num_heads=3, num_classes=5)
    return model.eval(), torch.randn(1, 3, 8, 32, 32)


def image(**changes: object) -> tuple[torch.nn.Module, torch.Tensor]:
    timm = pytest.importorskip("timm")
    settings = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 48,
        "depth": 4,
        "num_heads": 3,
        "num_classes": 5,
        **changes,
    }
    return timm.models.VisionTransformer(**settings).eval(), torch.randn(1, 3, 32, 32)


def windows() -> tuple[torch.nn.Module, torch.Tensor]:
    (backbone,) = [b for b in default_backbones() if b.name == "windows"]
    model, pixels = backbone.build()
    return model, pixels[:1]


HOSTS = {
    "video": video,
    "class token": image,
    "average pooling": lambda: image(class_token=False, global_pool="avg", fc_norm=True),
    "windows": windows,  # other methods on it: test_stage_flops
    "layer scale and qk-norm": lambda: image(init_values=0.1, qk_norm=True),
}
ONLY = {"fewer_frames": "video", "sta_window": "windows"}
CASES = [(h, m) for h in HOSTS for m in SETTINGS if ONLY.get(m, h) == h and (h != "windows" or m in ONLY)]


@pytest.mark.parametrize(("host", "method"), CASES, ids=[f"{h}, {m}" for h, m in CASES])
def test_three_counters_agree(host: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small windows are padded to the fullest one, which is more than the executed count says; this form is exact.
    monkeypatch.setattr("tokred.backbones.windowed.LOOP_VOLUME", 0)
    model, pixels = HOSTS[host]()
    fast = tokred.attach(model, tokred.build(SETTINGS[method]))
    report = count(fast.geometry, dry_run(fast.reducer, fast.geometry))
    counted = fvcore_macs(fast, (pixels,))
    assert not counted.unsupported
    assert counted.macs == report.executed_macs
    with torch.no_grad():
        # Norms of the host and, where a learned method has some, of its own.
        assert torch_macs(fast, (pixels,)).macs == report.executed_macs - counted.norm
        assert counted.norm == report.norm or host == "windows" or fast.reducer.capabilities.trainable
