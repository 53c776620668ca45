"""A plug-in that cannot be imported; everything else must go on working beside it."""

from __future__ import annotations

raise ImportError("the library that this plug-in needs is missing")
