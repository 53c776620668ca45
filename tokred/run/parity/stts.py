"""Replay of STTS's function-level vectors: perturbed and hard top-k, the scorer, and each stage by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokred.anchors import Anchors
from tokred.methods.stts import STTS, Scorer, frame_scores, square_scores
from tokred.perturbed import min_max, perturbed_top
from tokred.reducer import Site
from tokred.reduction import Keep, Reduction
from tokred.run.parity.golden import Golden, one_line
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.soft_cut import MixFrames, MixSquares
from tokred.tokens import Grid, Tokens
from tokred.two_stage import CutStep, best

TOLERANCE = 1e-4
"""Of features, scores and gradients, relative above magnitude one."""

SITE = Site("before_block", CutStep(0, 0, "keep", 1.0), 1, 1)


class Replayed(STTS):
    """STTS with the noise of a file instead of its own, one tensor (rows, samples, d) per stage."""

    stored: dict[int, Tensor]

    def draws(self, tokens: Tokens, rows: int, candidates: int, site: Site, stage: int) -> Tensor:
        if stage not in self.stored:
            raise Malformed(f"there is no noise for the {('temporal', 'spatial')[stage]} stage")
        noise = self.stored[stage]
        wanted = (tokens.x.shape[0] * rows, candidates)
        if (noise.shape[0], noise.shape[2]) != wanted:
            raise Malformed(f"noise of {noise.shape[0]} rows and {noise.shape[2]} candidates, not {wanted}")
        return noise


def replayed(dims: tuple[int, int], sigma: float) -> Replayed:
    """STTS with scorers for tokens of the given widths at its two stages, and official training settings."""
    reducer = Replayed(sigma=sigma, decay=False, weights=None)
    reducer.build_for(*dims)
    reducer.stored = {}
    return reducer


def perturbed(golden: Golden, ledger: Ledger) -> None:
    """Perturbed top-k: expected indicators, and the official gradient."""
    for name, case in cases(golden):
        scores = golden.floats(f"{name}.x", dims=2).requires_grad_()
        noise = golden.floats(f"{name}.noise", dims=3)
        for key, size in (("b", scores.shape[0]), ("d", scores.shape[1]), ("num_samples", noise.shape[1])):
            case.agree(key, size)
        chosen = perturbed_top(scores, case.whole("k", least=1), case.number("sigma"), noise)
        close(ledger, f"{name}.indicators", chosen, golden.floats(f"{name}.indicators"))
        (slope,) = torch.autograd.grad(chosen, scores, golden.floats(f"{name}.grad_output"))
        close(ledger, f"{name}.grad_x", slope, golden.floats(f"{name}.grad_x"))
        case.finish()


def hard(golden: Golden, ledger: Ledger) -> None:
    """Hard top-k, ascending."""
    for name, case in cases(golden):
        scores, theirs = golden.floats(f"{name}.scores", dims=2), golden.indices(f"{name}.indices", dims=2)
        case.agree("b", scores.shape[0])
        case.agree("d", scores.shape[1])
        ledger.decision(f"{name}.indices", best(scores, case.whole("k", theirs.shape[1], least=1)), theirs)
        case.finish()


@torch.no_grad()
def predictor(golden: Golden, ledger: Ledger) -> None:
    """The scorer and the min-max of its scores."""
    for name, case in cases(golden):
        x = golden.floats(f"{name}.x", dims=3)
        for key, size in zip(("B", "N", "embed_dim"), x.shape, strict=True):
            case.agree(key, size)
        scorer = Scorer(x.shape[2]).to(x.dtype)
        load(scorer, golden.weights(x.dtype, f"{name}.w."))
        scores = scorer(x)
        close(ledger, f"{name}.out", scores[..., None], golden.floats(f"{name}.out"))
        close(ledger, f"{name}.minmax", min_max(scores), golden.floats(f"{name}.minmax"))
        case.finish()


def stage(golden: Golden, ledger: Ledger) -> None:
    """One stage by itself: scores, choice and output in eval mode; mixture, output and gradients in training mode."""
    settings = golden.settings
    time = settings.choice("type", ("time", "space")) == "time"
    layout = settings.choice("layout", ("tokens", "bcthw"))
    settings.choice("file", ("MViT", "VideoSwin"), "MViT")
    grid = Grid(*(settings.whole(name, least=1) for name in "THW"))
    given = golden.floats("x", dims=3 if layout == "tokens" else 5)
    x = to_tokens(given, layout)
    settings.agree("B", x.shape[0])
    settings.agree("C", x.shape[2])
    if x.shape[1] != grid.patches:
        raise Malformed(f"x has {x.shape[1]} tokens, not T H W = {grid.patches}")
    k, side = settings.whole("k", least=1), settings.whole("anchor_size", least=1)
    stride = settings.take("stride", None)
    anchors = None if time else Anchors(grid.h, grid.w, side, side, stride if stride is None else int(stride))
    reducer = replayed((x.shape[2], 4) if time else (4, x.shape[2]), settings.number("sigma"))
    holder = reducer.time_score_predictor[0] if time else reducer.space_score_predictor[0]
    load(holder, golden.weights(x.dtype))

    def choose(tokens: Tokens) -> Reduction:
        if anchors is None:
            return reducer.choose_frames(tokens, k, SITE)
        return reducer.choose_squares(tokens, anchors, SITE)

    with torch.no_grad():
        tokens = Tokens(x, grid, groups=grid.t)
        reducer.eval()
        reduction = choose(tokens)
        scores = raw_scores(reducer, tokens, anchors)
        close(ledger, "scores", min_max(scores), golden.floats("scores"))
        ledger.decision("indices", chosen_of(reduction, tokens, anchors), golden.indices("indices"))
        shape = (k, grid.h, grid.w) if anchors is None else (grid.t, side, side)
        ledger.bits("out", from_tokens(reduction.apply(x), layout, shape), golden.floats("out"))
    if "train.noise" not in golden:
        return
    reducer.train()
    reducer.stored = {int(not time): golden.floats("train.noise", dims=3)}
    settings.agree("num_samples", golden.tensor("train.noise").shape[1])
    entering = given.detach().clone().requires_grad_()
    x = to_tokens(entering, layout)
    reduction = choose(Tokens(x, grid, groups=grid.t))
    close(ledger, "train.indicator", indicator_of(reduction), golden.floats("train.indicator"))
    out = from_tokens(reduction.apply(x), layout, shape)
    close(ledger, "train.out", out, golden.floats("train.out"))
    out.backward(golden.floats("train.grad_out"))
    assert entering.grad is not None
    close(ledger, "train.grad_x", entering.grad, golden.floats("train.grad_x"))
    gradients(golden, ledger, dict(holder.named_parameters()))


def raw_scores(reducer: STTS, tokens: Tokens, anchors: Anchors | None) -> Tensor:
    """Scores of the frames (B, T), or of the squares of each frame (B * T, L), before min-max."""
    if anchors is None:
        return frame_scores(reducer.time_score_predictor[0].get_submodule("score_network"), tokens.by_frame())
    network = reducer.space_score_predictor[0].get_submodule("score_network")
    return square_scores(network, tokens.by_frame().flatten(0, 1), anchors)


def chosen_of(reduction: Reduction, before: Tokens, anchors: Anchors | None) -> Tensor:
    """Which frames (B, k) or which square of each frame (B * T, 1) were kept."""
    if not isinstance(reduction, Keep) or before.groups is None:
        raise Malformed(f"STTS made a {type(reduction).__name__} where it must keep a subset")
    index = reduction.index[:, before.prefix :] - before.prefix
    size = before.patch_count // before.groups
    if anchors is None:
        return index[:, ::size] // size
    first = index[:, :: anchors.area].reshape(-1, 1) % size
    return (first == anchors.places(first.device)[:, 0]).int().argmax(dim=1, keepdim=True)


def indicator_of(reduction: Reduction) -> Tensor:
    """The training mixture in the official layout (rows, d, k)."""
    if isinstance(reduction, MixFrames):
        return reduction.weights.transpose(1, 2)
    if isinstance(reduction, MixSquares):
        return reduction.weights.flatten(0, 1)[..., None]
    raise Malformed(f"STTS made a {type(reduction).__name__} in training")


def gradients(golden: Golden, ledger: Ledger, parameters: dict[str, nn.Parameter]) -> None:
    """Every gradient that the file holds, by the parameter's name."""
    for name in golden.matching(r"train\.grad\..*"):
        parameter = parameters.get(name.removeprefix("train.grad."))
        if parameter is None or parameter.grad is None:
            raise Malformed(f"{name} is of no parameter that has a gradient here")
        theirs = golden.floats(name)
        if name.endswith("out_conv.4.bias"):
            # Min-max takes out what all scores have in common: this gradient is zero, and what is stored is the
            # rounding of sums as large as the gradient of the layer's weight.
            layer = golden.floats(name.removesuffix("bias") + "weight")
            ledger.value(name, parameter.grad, theirs, absolute=TOLERANCE * max(1.0, float(layer.abs().max())))
        else:
            close(ledger, name, parameter.grad, theirs)


def close(ledger: Ledger, name: str, ours: Tensor, theirs: Tensor) -> None:
    """Within the tolerance, absolute up to magnitude one and relative above."""
    ledger.fused(name, ours, theirs, TOLERANCE)


def cases(golden: Golden) -> list[tuple[str, Settings]]:
    """Name and settings of each case of a file that holds several."""
    listed = golden.settings.items("cases")
    if not listed:
        raise Malformed("the file lists no cases")
    return [(f"c{i}", Settings(case, f"cases[{i}]")) for i, case in enumerate(listed)]


def load(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Take exactly these weights."""
    module.to(next(iter(weights.values())).dtype)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise Malformed(f"the weights do not fit: {one_line(error)}") from error


def to_tokens(x: Tensor, layout: str) -> Tensor:
    """(B, N, C) in raster order, from the file's layout."""
    return x if layout == "tokens" else x.flatten(2).transpose(1, 2)


def from_tokens(x: Tensor, layout: str, shape: tuple[int, int, int]) -> Tensor:
    """(B, N, C) in the file's layout."""
    return x if layout == "tokens" else x.transpose(1, 2).unflatten(2, shape)
