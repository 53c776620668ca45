"""A dense transformer in plain float64 tensors, its weights, and its input: nothing of tokred, nothing of timm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. Frames None makes an image model; half keeps the weights in float16."""

    dim: int
    depth: int
    heads: int
    hidden: int
    patch: int
    pixels: int
    classes: int
    frames: int | None = None
    tubelet: int = 2
    in_chans: int = 3
    prefix: int = 0
    qkv_bias: bool = True
    gamma: bool = False
    learned: bool = True
    pool: str = "mean"
    eps: float = 1e-6
    half: bool = False

    @property
    def patches(self) -> int:
        return (self.pixels // self.patch) ** 2 * (1 if self.frames is None else self.frames // self.tubelet)


def weights(shape: Shape, seed: int) -> dict[str, Tensor]:
    """A random state dict, float32, with the names of the published code."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int, scale: float, mean: float = 0.0) -> Tensor:
        return torch.randn(*size, generator=generator) * scale + mean

    c, h = shape.dim, shape.hidden
    kernel = (shape.patch, shape.patch) if shape.frames is None else (shape.tubelet, shape.patch, shape.patch)
    inputs = shape.in_chans * math.prod(kernel)
    out = {
        "patch_embed.proj.weight": normal(c, shape.in_chans, *kernel, scale=inputs**-0.5),
        "patch_embed.proj.bias": normal(c, scale=0.1),
    }
    if shape.learned:
        out["pos_embed"] = normal(1, shape.prefix + shape.patches, c, scale=0.5)
    for name in ("cls_token", "dist_token")[: shape.prefix]:
        out[name] = normal(1, 1, c, scale=0.5)

    def norm(name: str) -> None:
        out[f"{name}.weight"] = normal(c, scale=0.1, mean=1.0)
        out[f"{name}.bias"] = normal(c, scale=0.1)

    def linear(name: str, rows: int, columns: int, gain: float = 1.0) -> None:
        out[f"{name}.weight"] = normal(rows, columns, scale=gain * columns**-0.5)
        out[f"{name}.bias"] = normal(rows, scale=0.1)

    for i in range(shape.depth):
        block = f"blocks.{i}"
        norm(f"{block}.norm1")
        out[f"{block}.attn.qkv.weight"] = normal(3 * c, c, scale=1.5 * c**-0.5)
        if shape.qkv_bias and shape.frames is None:
            out[f"{block}.attn.qkv.bias"] = normal(3 * c, scale=0.2)
        elif shape.qkv_bias:
            out[f"{block}.attn.q_bias"], out[f"{block}.attn.v_bias"] = normal(c, scale=0.2), normal(c, scale=0.2)
        linear(f"{block}.attn.proj", c, c)
        norm(f"{block}.norm2")
        linear(f"{block}.mlp.fc1", h, c)
        linear(f"{block}.mlp.fc2", c, h)
        if shape.gamma:
            out[f"{block}.gamma_1"], out[f"{block}.gamma_2"] = (normal(c, scale=0.1, mean=0.5) for _ in range(2))
    norm("fc_norm" if shape.pool in ("mean", "mass") else "norm")
    linear("head", shape.classes, c, gain=0.5)
    if shape.prefix == 2:
        linear("head_dist", shape.classes, c, gain=0.5)
    return {name: tensor.half() for name, tensor in out.items()} if shape.half else out


def bicubic(table: Tensor, side: int) -> Tensor:
    """A square table of positions (n * n, C) on another square grid: cubic convolution with a = -0.75 over 4 x 4
    neighbours, edges repeated, corners not aligned."""
    old = math.isqrt(len(table))

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    def taps(i: int) -> list[tuple[int, float]]:
        at = (i + 0.5) * old / side - 0.5
        near = range(math.floor(at) - 1, math.floor(at) + 3)
        return [(min(max(j, 0), old - 1), kernel(at - j)) for j in near]

    rows = []
    for i in range(side):
        for j in range(side):
            rows.append(sum(a * b * table[p * old + q] for p, a in taps(i) for q, b in taps(j)))
    return torch.stack(rows)


class Vit:
    """The forward pass in pieces, on float64 weights."""

    def __init__(self, shape: Shape, state: dict[str, Tensor]) -> None:
        self.shape = shape
        self.w = {name: tensor.double() for name, tensor in state.items()}

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + self.shape.eps).sqrt()
        return centred / spread * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def positions(self) -> Tensor:
        """The table (1, N, C): learned, or sin-cos over the flattened index."""
        if self.shape.learned:
            return self.w["pos_embed"]
        table = torch.zeros(1, self.shape.patches, self.shape.dim, dtype=torch.float64)
        for p in range(self.shape.patches):
            for j in range(self.shape.dim):
                angle = p / 10000 ** (2 * (j // 2) / self.shape.dim)
                table[0, p, j] = math.cos(angle) if j % 2 else math.sin(angle)
        return table.float().double()

    def embed(self, pixels: Tensor) -> Tensor:
        """Patches cut out one by one, t-major, class tokens in front, positions added."""
        kernel, size = self.w["patch_embed.proj.weight"], self.shape.patch
        x = pixels if self.shape.frames is not None else pixels[:, :, None]
        depth = self.shape.tubelet if self.shape.frames is not None else 1
        rows = []
        for t in range(0, x.shape[2] // depth * depth, depth):
            for i in range(0, x.shape[3] // size * size, size):
                for j in range(0, x.shape[4] // size * size, size):
                    patch = x[:, :, t : t + depth, i : i + size, j : j + size].flatten(1)
                    rows.append(patch @ kernel.flatten(1).T + self.w["patch_embed.proj.bias"])
        tokens, table = torch.stack(rows, 1), self.positions()
        if len(rows) != self.shape.patches:
            front, back = table.split([self.shape.prefix, self.shape.patches], 1)
            table = torch.cat([front, bicubic(back[0], math.isqrt(len(rows)))[None]], 1)
        names = [self.w[name].expand(len(x), 1, -1) for name in ("cls_token", "dist_token")[: self.shape.prefix]]
        return torch.cat([*names, tokens], 1) + table

    def qkv(self, i: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values (B, H, N, d) of block i for its input x."""
        block, c = f"blocks.{i}.attn", self.shape.dim
        out = self.norm(f"blocks.{i}.norm1", x) @ self.w[f"{block}.qkv.weight"].T
        if f"{block}.qkv.bias" in self.w:
            out = out + self.w[f"{block}.qkv.bias"]
        elif self.shape.qkv_bias:
            zero = torch.zeros(c, dtype=torch.float64)
            out = out + torch.cat([self.w[f"{block}.q_bias"], zero, self.w[f"{block}.v_bias"]])
        parts = out.split(c, dim=-1)
        q, k, v = (torch.stack(part.split(c // self.shape.heads, dim=-1), 1) for part in parts)
        return q, k, v

    def attend(self, i: int, x: Tensor, log_size: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The attention half: the branch (B, N, C), the map (B, H, N, N), the keys averaged over heads."""
        q, k, v = self.qkv(i, x)
        logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        if log_size is not None:
            logits = logits + log_size[:, None, None, :]
        attention = logits.softmax(-1)
        heads = torch.cat(list((attention @ v).unbind(1)), -1)
        return self.linear(f"blocks.{i}.attn.proj", heads), attention, k.mean(1)

    def plus(self, i: int, which: int, x: Tensor, branch: Tensor) -> Tensor:
        """The residual, with layer scale where there is one."""
        return x + (self.w[f"blocks.{i}.gamma_{which}"] * branch if self.shape.gamma else branch)

    def feed(self, i: int, x: Tensor) -> Tensor:
        """The MLP half."""
        hidden = self.linear(f"blocks.{i}.mlp.fc1", self.norm(f"blocks.{i}.norm2", x))
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return self.plus(i, 2, x, self.linear(f"blocks.{i}.mlp.fc2", hidden))

    def block(self, i: int, x: Tensor) -> Tensor:
        return self.feed(i, self.plus(i, 1, x, self.attend(i, x)[0]))

    def features(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        """Pooled and normed: mean (by mass where pool is "mass"), or the first token."""
        if self.shape.pool == "token":
            return self.norm("norm", x)[:, 0]
        tokens = x[:, self.shape.prefix :]
        if self.shape.pool == "mean" or size is None:
            return self.norm("fc_norm", tokens.mean(1))
        mass = size[:, self.shape.prefix :, None]
        return self.norm("fc_norm", (mass * tokens).sum(1) / mass.sum(1))

    def logits(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        if self.shape.prefix == 2:
            normed = self.norm("norm", x)
            return (self.linear("head", normed[:, 0]) + self.linear("head_dist", normed[:, 1])) / 2
        return self.linear("head", self.features(x, size))
