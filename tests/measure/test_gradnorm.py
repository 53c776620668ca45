"""How much of what the answer depends on the kept tokens carry."""

from __future__ import annotations

import pytest
import torch

import tokred
from tokred.backbones.videomae import VideoViT
from tokred.measure.gradnorm import gradient_norms, retention

CLIPS = torch.randn(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(
        img_size=16, patch_size=4, tubelet_size=2, frames=8, dim=24, depth=3, num_heads=3, num_classes=5
    ).eval()


def test_the_norm_is_that_of_the_largest_logits_gradient(model) -> None:
    """Held against finite differences: moving a token along its gradient raises the logit by the norm."""
    fast = tokred.attach(model, tokred.build("none"))
    norms = gradient_norms(fast, CLIPS)
    assert norms.shape == (2, 4, 4, 4)
    base = model(CLIPS)
    best = base.argmax(1)
    tokens = {}
    hook = model.blocks[0].register_forward_pre_hook(lambda m, a: tokens.setdefault("x", a[0]))
    model(CLIPS)
    hook.remove()
    x = tokens["x"].detach().requires_grad_()
    y = x
    for block in model.blocks:
        y = block(y)
    logits = model.head(model.fc_norm(y.mean(1)))
    torch.testing.assert_close(logits, base, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(logits.gather(1, best[:, None]).sum(), x)
    torch.testing.assert_close(norms.flatten(1), gradient.norm(dim=-1), atol=1e-6, rtol=1e-4)


def test_keeping_everything_retains_everything_and_leaves_no_gradient_behind(model) -> None:
    found = retention(tokred.attach(model, tokred.build("none")), CLIPS)
    torch.testing.assert_close(found["retained"], torch.ones(2))
    torch.testing.assert_close(found["kept"], torch.ones(2))
    torch.testing.assert_close(found["gradient"].sum(dim=(1, 2, 3)), torch.ones(2))
    assert all(p.grad is None for p in model.parameters())
    assert not any(v.requires_grad for v in found.values())


def test_a_dropped_frame_retains_nothing(model) -> None:
    found = retention(tokred.attach(model, tokred.build("random_drop:keep=0.25,at=[0]")), CLIPS)
    torch.testing.assert_close(found["kept"], torch.full((2,), 0.25))
    per_frame = found["retained_per_frame"]
    assert ((per_frame >= 0) & (per_frame <= 1 + 1e-6)).all()
    weights = found["gradient"].sum(dim=(2, 3))
    torch.testing.assert_close((per_frame * weights).sum(1), found["retained"])
    assert (found["retained"] < 0.9).all()


def test_merged_patches_are_carried(model) -> None:
    found = retention(tokred.attach(model, tokred.build("tome:r=8")), CLIPS)
    torch.testing.assert_close(found["retained"], torch.ones(2))


def test_it_works_inside_inference_mode(model) -> None:
    with torch.inference_mode():
        found = retention(tokred.attach(model, tokred.build("sta:r=4")), CLIPS)
    assert found["retained"].isfinite().all()
