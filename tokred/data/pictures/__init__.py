"""Labelled still pictures: found, decoded, and given as clips of one frame or, animated, of many."""

from __future__ import annotations

from tokred.data.pictures.cifar import CIFAR10_CLASSES, read_cifar10
from tokred.data.pictures.collection import CLASS, PictureError, Pictures, decode
from tokred.data.pictures.finding import find_pictures
from tokred.data.pictures.stills import PictureSource

__all__ = [
    "CIFAR10_CLASSES",
    "CLASS",
    "PictureError",
    "PictureSource",
    "Pictures",
    "decode",
    "find_pictures",
    "read_cifar10",
]
