"""Training on still pictures: the same loop as for clips, with other data, another loss and another evaluation."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.spec import BackboneSpec
from tokred.backbones.zoo import backbone_spec
from tokred.data.pictures import PictureSource, read_cifar10
from tokred.data.synthetic.render import stream_seed
from tokred.data.views import Views
from tokred.run.sanity import correct
from tokred.run.train import Run
from tokred.run.train_export import TrainResult, as_stored
from tokred.run.train_image_spec import Cifar10Spec
from tokred.run.train_image_start import whiten
from tokred.run.train_learned import gradients_of, learned_forward, write_weights
from tokred.run.train_spec import StageSpec, TrainSpec
from tokred.run.train_step import StepEngine

NORMALISED_AS = "vit_nano"
WHITENED_ON = 1000  # pictures


class PictureSets:
    """The pictures of a run.

    Args:
        spec: the recipe; path: where CIFAR-10 lies.
    Raises:
        DataError: it does not lie there.
    """

    def __init__(self, spec: Cifar10Spec, path: Path) -> None:
        look = backbone_spec(NORMALISED_AS)
        self.views = Views((spec.size, spec.size), look.mean, look.std)
        training = read_cifar10(path, "train")
        generator = torch.Generator().manual_seed(stream_seed("validation", spec.seed))
        order = torch.randperm(len(training), generator=generator).tolist()
        if spec.validation >= len(order):
            raise ValueError(f"data.validation = {spec.validation} leaves nothing of {len(order)} pictures to train on")
        used, kept = order[: -spec.validation], order[-spec.validation :]
        self.training = PictureSource(training.chosen(used, ""), self.views)
        self.validation = PictureSource(training.chosen(kept, "held out of the training set"), self.views)
        self.test = PictureSource(read_cifar10(path, "test"), self.views)
        batches = list(self.training.pixel_batches(1000))
        self.pixels = torch.cat([batch.clips[:, :, 0] for batch in batches])  # (N, 3, H, W) uint8
        self.labels = torch.cat([batch.labels["class"] for batch in batches])

    def normalised(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to float32 as the model takes it."""
        return self.views.normalise(pixels[:, :, None])[:, :, 0]


class ImageRun(Run):
    """A run on pictures."""

    sets: PictureSets

    def prepare(self, data: Path | None) -> None:
        if data is None:
            raise ValueError("this recipe trains on CIFAR-10: say where it lies (--data PATH)")
        assert isinstance(self.spec.data, Cifar10Spec)
        self.sets = PictureSets(self.spec.data, data)
        for failure in self.sets.training.failures:
            self.say(f"left out: {failure.path}: {failure.reason}")

    def start(self, model: nn.Module) -> nn.Module:
        if self.spec.start is None:
            whiten(getattr(model, "host", model), self.sets.normalised(self.sets.pixels[:WHITENED_ON]))
        return model

    def make_engine(self) -> StepEngine:
        return ImageEngine(self.spec, self.trainee, self.crew, self.device, self.sets)

    def evaluate_stage(self, stage: str) -> None:
        count = min(self.spec.evaluation.stage_clips, len(self.sets.validation))
        if not count:
            return
        source = PictureSource(self.sets.validation.pictures.thinned(count), self.sets.views)
        found = self.accuracy(self.result_model(), source)
        self.log.write({"step": self.step, "event": "stage", "stage": stage, "clips": count, **found})
        self.say(f"after {stage} (step {self.step}): {100 * found['class']:.1f} % on {count} validation pictures")

    def finish(self) -> TrainResult:
        """Export, and the evaluation of exactly the exported values on the test set."""
        test = self.sets.test
        source = PictureSource(test.pictures.thinned(self.spec.evaluation.clips), self.sets.views)
        model = as_stored(self.result_model())
        found = {"intact": self.accuracy(model, source)}
        self.log.write(
            {"step": self.step, "event": "final", "clips": len(source), "digest": source.digest(), "top1": found}
        )
        self.say(f"top-1 on {len(source)} test pictures: {100 * found['intact']['class']:.1f} %")
        path = write_weights(model, self.folder, self.spec, self.step, source, found)
        self.say(f"weights: {path} ({path.stat().st_size / 1e6:.2f} MB)")
        return TrainResult(model, found, path, self.folder, self.step)

    def accuracy(self, model: nn.Module, source: PictureSource) -> dict[str, float]:
        """Label set -> top-1 in [0, 1]."""
        right = 0
        layout = BackboneSpec("image", 1, self.sets.views.size, layout="BCHW")
        for found in self.crew.map(
            lambda batch: correct(model, batch, source.label_sets, lambda clips, _: layout.arrange(clips)),
            source.batches(100),
        ):
            right += found["class"]
        return {"class": right / max(1, len(source) - len(source.failures))}


class ImageEngine(StepEngine):
    """Gradients of the cross-entropy on pictures, shifted and flipped at random.

    Args:
        spec, trainee, crew, device: see ``StepEngine``; sets: the pictures.
    """

    def __init__(self, spec: TrainSpec, trainee: Any, crew: Any, device: torch.device, sets: PictureSets) -> None:
        super().__init__(spec, trainee, crew, device)
        self.sets = sets

    def _micro_batch(
        self, step: int, part: int, stage: StageSpec, parameters: list[nn.Parameter]
    ) -> tuple[tuple[Tensor | None, ...], dict[str, float]]:
        spec, size = self.spec, self.spec.micro_batch
        assert isinstance(spec.data, Cifar10Spec)
        generator = torch.Generator().manual_seed(stream_seed("micro-batch", spec.seed, step, part))
        first = step * spec.batch_size + part * size
        places = [self._place(number) for number in range(first, first + size)]
        pixels = augment(self.sets.pixels[places], spec.data.shift, generator)
        patches = (spec.data.size // spec.model.stride) ** 2
        lottery = torch.rand(size, patches, generator=generator)
        keep = None
        if stage.tokens < 1:
            keep = lottery.topk(max(1, round(stage.tokens * patches)), dim=1).indices.sort(dim=1).values
        dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
        pictures = self.sets.normalised(pixels).to(self.device, dtype)
        wanted = self.sets.labels[places].to(self.device)
        with torch.enable_grad():
            extras: dict[str, Tensor] = {}
            if keep is None:
                logits, extras, _ = learned_forward(self.copy.model, pictures, self.teacher, [slice(None)])
            else:
                logits = seen_logits(self.copy.model, pictures, keep).float()
            loss = F.cross_entropy(logits, wanted, label_smoothing=spec.optimizer.label_smoothing)
            figures = {"class_loss": loss.item()}
            for name, extra in extras.items():
                loss = loss + extra
                figures[f"{name}_loss"] = extra.item()
            gradients = gradients_of(loss, parameters)
        top1 = (logits.argmax(-1) == wanted).float().mean().item()
        return gradients, {"class_top1": top1, "loss": loss.item(), **(figures if extras else {})}

    def _place(self, number: int) -> int:
        """The picture that is shown as number ``number``: each once per pass, in another order every time."""
        total = len(self.sets.pixels)
        return _order(self.spec.seed, number // total, total)[number % total]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, total: int) -> list[int]:
    generator = torch.Generator().manual_seed(stream_seed("epoch", seed, epoch))
    return torch.randperm(total, generator=generator).tolist()


def augment(pixels: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W) shifted by up to ``shift`` pixels each way, black where nothing is left, and flipped."""
    b, _, height, width = pixels.shape
    corners = torch.randint(0, 2 * shift + 1, (b, 2), generator=generator).tolist()
    flips = (torch.rand(b, generator=generator) < 0.5).tolist()
    padded = F.pad(pixels, (shift, shift, shift, shift))
    out = torch.empty_like(pixels)
    for i, ((top, left), flip) in enumerate(zip(corners, flips, strict=True)):
        window = padded[i, :, top : top + height, left : left + width]
        out[i] = window.flip(-1) if flip else window
    return out


def seen_logits(model: nn.Module, pictures: Tensor, keep: Tensor) -> Tensor:
    """Logits of an image ViT that sees some of the patches.

    Args:
        model: timm's ``VisionTransformer``; pictures: (B, 3, H, W); keep: (B, K) patches that it sees.
    Returns:
        (B, classes).
    """
    vit: Any = model
    x = vit._pos_embed(vit.patch_embed(pictures))
    prefix = vit.num_prefix_tokens
    patches = x[:, prefix:].gather(1, keep.to(x.device)[..., None].expand(-1, -1, x.shape[-1]))
    x = torch.cat([x[:, :prefix], patches], dim=1)
    return vit.forward_head(vit.norm(vit.blocks(vit.norm_pre(x))))
