"""Replay of the factorised ViViT of Eventful Transformers: from uint8 video to class probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.run.parity.eventful import OUT, policy_of
from tokred.run.parity.eventful_models import Backbone
from tokred.run.parity.golden import Golden
from tokred.run.parity.hosts import NORM_EPS
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.streaming import Policy


class FactorisedViViT:
    """The official model on the views of one video.

    Args:
        weights: official names; config: as in the file; policy: of the spatial model's gates, None = plain blocks.
    """

    def __init__(self, weights: dict[str, Tensor], config: Settings, policy: Policy | None) -> None:
        self.weights = weights
        _, _, self.height, self.width = config.items("input_shape")
        self.frames = config.items("input_shape")[0]
        self.tubelet = tuple(config.items("tubelet_shape"))
        self.mean, self.std = config.number("normalize_mean"), config.number("normalize_std")
        self.stride = config.whole("temporal_stride", 1, least=1)
        self.views = (config.whole("temporal_views", 1, least=1), config.whole("spatial_views", 1, least=1))
        grid = (self.height // self.tubelet[1], self.width // self.tubelet[2])
        self.spatial = self._backbone("spatial", config, policy, grid)
        self.temporal = self._backbone("temporal", config, None, (self.frames // self.tubelet[0],))
        self.counts: dict[str, int] = {}
        config.agree("classes", weights["classifier.weight"].shape[0])

    def features(self, views: Tensor) -> Tensor:
        """Views (V, C, T, H, W) to the class feature of each step, (V, T', C): one spatial pass per step."""
        kernel, bias = self.weights["embedding.conv.weight"], self.weights["embedding.conv.bias"]
        x = F.conv3d(views, kernel, bias, stride=self.tubelet)
        self.spatial.reset()
        steps = []
        for step in x.unbind(dim=2):
            tokens = self._with_class("spatial", step.flatten(2).transpose(1, 2))
            out = self.spatial(tokens)
            self._add(self.spatial.counts(len(views)))
            steps.append(self._norm("spatial", out)[:, 0])
        return torch.stack(steps, dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """Class features (V, T', C) to logits per view, (V, classes)."""
        self.temporal.reset()
        out = self.temporal(self._with_class("temporal", features))
        self._add(self.temporal.counts(len(features)))
        pooled = self._norm("temporal", out)[:, 0]
        classifier = self.weights["classifier.weight"]
        self._add({"linear_flops": len(features) * classifier.numel(), "bias_flops": len(features) * len(classifier)})
        return F.linear(pooled, classifier, self.weights["classifier.bias"])

    def cut(self, video: Tensor) -> Tensor:
        """uint8 video (T, C, H, W) to normalised views (V, C, T, H, W): all temporal views of the first crop, then the
        next crop. The last frame of a short video is repeated."""
        span = self.stride * self.frames
        if len(video) < span:
            video = torch.cat([video, video[-1:].expand(span - len(video), -1, -1, -1)])
        if min(video.shape[2] - self.height, video.shape[3] - self.width) != 0:
            raise Malformed("the frames would be resized: their short side must be that of the model's input")
        x = (video.float() / 255 - self.mean) / self.std
        clips = [x[start : start + span : self.stride] for start in _starts(len(x) - span, self.views[0])]
        tops = _starts(x.shape[2] - self.height, self.views[1])
        lefts = _starts(x.shape[3] - self.width, self.views[1])
        return torch.stack(
            [
                clip[:, :, top : top + self.height, left : left + self.width].transpose(0, 1)
                for top, left in zip(tops, lefts, strict=True)
                for clip in clips
            ]
        )

    def _backbone(self, name: str, config: Settings, policy: Policy | None, grid: tuple[int, ...]) -> Backbone:
        prefix = f"{name}_model.backbone."
        weights = {key.removeprefix(prefix): w for key, w in self.weights.items() if key.startswith(prefix)}
        inner = config.inner(f"{name}_config")
        made = Backbone(weights, inner, policy, grid)
        inner.finish()
        return made

    def _with_class(self, name: str, x: Tensor) -> Tensor:
        return torch.cat([self.weights[f"{name}_model.class_token"].expand(len(x), -1, -1), x], dim=1)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.weights[f"{name}_model.layer_norm.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(x, weight.shape, weight, bias, NORM_EPS)

    def _add(self, counts: dict[str, int]) -> None:
        for key, value in counts.items():
            self.counts[key] = self.counts.get(key, 0) + value


@torch.no_grad()
def video(golden: Golden, ledger: Ledger) -> None:
    """One video: class features of every step and view, probabilities, counted work, and the plain model."""
    settings = golden.settings
    settings.choice("model", ("FactorizedViViT",))
    config = settings.inner("config")
    weights = golden.weights(torch.float32)
    together = settings.flag("batch_views")
    policy = policy_of(settings)
    pixels = golden.indices("x", 5)
    for name, gates in (("", policy), ("vanilla_", None)):
        model = FactorisedViViT(weights, config, gates)
        spatial, probabilities = [], []
        for one in pixels:
            views = model.cut(one)
            groups = [views] if together else list(views.split(1))
            features = torch.cat([model.features(group) for group in groups])
            logits = model.classify(features)
            spatial.append(features)
            probabilities.append(logits.mean(dim=0).softmax(dim=-1))
        if gates is not None:
            ledger.value("spatial", torch.cat(spatial), golden.floats("spatial", 3), absolute=OUT)
        ledger.value(f"{name}probs", torch.stack(probabilities), golden.floats(f"{name}probs", 2), absolute=OUT)
        counted = settings.take(f"{name}counts")
        ledger.counts(f"{name}counts", {k: v for k, v in model.counts.items() if v}, counted)
    config.finish()


def _starts(spare: int, count: int) -> list[int]:
    """Where ``count`` views start, evenly spread over what is left over, in floating point as in the official code."""
    if count == 1:
        return [spare // 2]
    return [int(i * (spare / (count - 1))) for i in range(count)]
