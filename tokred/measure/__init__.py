"""What a reduction costs and what it loses: multiply-adds, time, memory, accuracy, agreement."""

from __future__ import annotations
