"""The patch grid of a video model from its sizes in pixels: one rule, one message."""

from __future__ import annotations

from tokred.tokens import Grid


def patch_grid(
    img_size: int | tuple[int, int], frames: int, patch_size: int, tubelet_size: int
) -> tuple[tuple[int, int], Grid]:
    """Height and width in pixels, and the grid of patches.

    Args:
        img_size: height and width, or one number for a square; frames: of a clip.
        patch_size: pixels per side of a patch; tubelet_size: frames of one.
    Raises:
        ValueError: the patches do not divide the clip.
    """
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if height % patch_size or width % patch_size or frames % tubelet_size:
        raise ValueError(
            f"patch {patch_size} must divide {height}x{width} pixels "
            f"and tubelet {tubelet_size} must divide {frames} frames"
        )
    return (height, width), Grid(frames // tubelet_size, height // patch_size, width // patch_size)
