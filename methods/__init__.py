"""The methods, one file each. A new one needs its file and one line here."""

from __future__ import annotations

if __name__ == "methods":
    raise ImportError("import tokred.methods, not methods: under two names every method would register twice")

from tokred.methods.ats import ATS
from tokred.methods.baselines import FewerFrames, GridKeep, LowerResolution, RandomDrop, RandomMerge, TopK, Unreduced
from tokred.methods.dynamicvit import DynamicViT
from tokred.methods.eventful import Eventful
from tokred.methods.evit import EViT
from tokred.methods.sta import STA
from tokred.methods.sta_window import STAWindow
from tokred.methods.stts import STTS
from tokred.methods.stts_heuristic import STTSHeuristic
from tokred.methods.stvit import STViT, STViTR
from tokred.methods.tome import ToMe
from tokred.methods.vid_tldr import VidTLDR

__all__ = [
    "ATS",
    "STA",
    "STTS",
    "DynamicViT",
    "EViT",
    "Eventful",
    "FewerFrames",
    "GridKeep",
    "LowerResolution",
    "RandomDrop",
    "RandomMerge",
    "STAWindow",
    "STTSHeuristic",
    "STViT",
    "STViTR",
    "ToMe",
    "TopK",
    "Unreduced",
    "VidTLDR",
]
