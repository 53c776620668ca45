"""From decoded pictures to what a model is fed: resize, crops, normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.data.decode import Picture

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Views:
    """How the pictures of a clip are resized, cropped and normalised.

    Pictures are scaled, keeping their shape, until they just cover ``size`` (for a square: the short side becomes that
    side, the long side is rounded down, as in VideoMAE's evaluation), and cropped along the side that is left over.

    Args:
        size: (height, width) of a view, pixels.
        mean, std: per channel, on pixels in [0, 1]; ImageNet's for VideoMAE.
        crops: 1 (the centre) or 3 (both ends and the centre of the longer side).
        antialias: filter before shrinking. VideoMAE's evaluation does not; without it, a strong reduction such as
            640 to 64 pixels reads one pixel in ten.
    """

    size: tuple[int, int]
    mean: Triple
    std: Triple
    crops: int = 1
    antialias: bool = True

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size = {self.size} (height, width) must be positive")
        if self.crops not in (1, 3):
            raise ValueError(f"crops = {self.crops} is not 1 or 3")
        if min(self.std) <= 0:
            raise ValueError(f"std = {self.std} must be positive")

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a picture after scaling: it just covers the view."""
        view_height, view_width = self.size
        if height * view_width >= width * view_height:
            return height * view_width // width, view_width
        return view_height, width * view_height // height

    def resize(self, picture: Picture) -> Tensor:
        """(H, W, 3) uint8 to (3, h, w) uint8, bilinear, pixel centres aligned, rounded to whole numbers."""
        height, width = picture.shape[:2]
        target = self.resized(height, width)
        pixels = torch.from_numpy(picture).permute(2, 0, 1)
        if target == (height, width):
            return pixels.contiguous()
        scaled = F.interpolate(pixels[None].float(), size=target, mode="bilinear", antialias=self.antialias)
        return scaled[0].round_().clamp_(0, 255).to(torch.uint8)

    def cut(self, pictures: Tensor) -> list[Tensor]:
        """The crops of resized pictures.

        Args:
            pictures: (T, 3, h, w).

        Returns:
            ``crops`` tensors (3, T, H, W), views of the input.
        """
        view_height, view_width = self.size
        spare = (pictures.shape[2] - view_height, pictures.shape[3] - view_width)
        steps = [1] if self.crops == 1 else [0, 1, 2]  # in halves of what is left over
        corners = [(spare[0] * step // 2, spare[1] * step // 2) for step in steps]
        clip = pictures.transpose(0, 1)
        return [clip[:, :, top : top + view_height, left : left + view_width] for top, left in corners]

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, 3, T, H, W) uint8 to float32, (pixel / 255 - mean) / std."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (self.mean, self.std))
        return (pixels / 255).sub_(mean).div_(std)
