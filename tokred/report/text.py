"""How numbers and foreign text are written, the same in every table, picture and page."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

MISSING = "–"  # stands for "not measured"
# Characters that change the direction of the text around them: a file name could pretend to be another one.
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(value: object) -> str:
    """Return `value` as one line of printable text.

    File names come from outside and may hold terminal escapes, line breaks, bytes that are no UTF-8 (lone
    surrogates) or direction marks. Each of those is written as its escape, so it is seen and does nothing.
    """
    return "".join(_escape(c) if unicodedata.category(c) in ("Cc", "Cs") or c in _DIRECTION else c for c in str(value))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def shorten(text: str, length: int) -> str:
    """Return `text`, or its beginning and an ellipsis where it is longer than `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def number(value: Any) -> float | None:
    """Return `value` as a finite float, or None where it is missing, NaN, infinite or not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def fixed(value: Any, digits: int = 2, suffix: str = "", sign: bool = False) -> str:
    """Write a number with `digits` decimals; a missing one as a dash."""
    x = number(value)
    if x is None:
        return MISSING
    text = f"{x:{'+' if sign else ''}.{digits}f}"
    # "-0.0" would claim a loss where there is none.
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text + suffix


def percent(value: Any, digits: int = 1, sign: bool = False) -> str:
    """Write a share of one in percent, without the percent sign."""
    x = number(value)
    return fixed(None if x is None else 100 * x, digits, sign=sign)


def interval(low: Any, high: Any, scale: float = 1.0, digits: int = 1) -> str | None:
    """Write an interval as `[low, high]`; None where an end is missing."""
    a, b = number(low), number(high)
    return None if a is None or b is None else f"[{fixed(scale * a, digits)}, {fixed(scale * b, digits)}]"


def significant(value: Any, digits: int = 3) -> str:
    """Write a number of unknown magnitude with `digits` significant digits (KL, GMAC, distances)."""
    x = number(value)
    if x is None:
        return MISSING
    if x == 0:
        return "0"
    exponent = math.floor(math.log10(abs(x)))
    if exponent < -4 or exponent > 5:
        return f"{x:.{max(digits - 2, 0)}e}"
    return f"{x:.{max(digits - 1 - exponent, 0)}f}"


def p_value(value: Any) -> str | None:
    """Write a p value; None where there is none."""
    x = number(value)
    if x is None:
        return None
    return "p<0.001" if x < 0.001 else f"p={x:.3f}" if x < 0.0995 else f"p={x:.2f}"


def count(value: Any) -> str:
    """Write an integer with thousands separated; a missing one as a dash."""
    x = number(value)
    return MISSING if x is None else f"{x:,.0f}"


def plural(n: int, one: str, many: str | None = None) -> str:
    """Return "1 file" or "3 files"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def in_units(text: str, unit: str) -> str:
    """Return a text about clips as one about what a model takes: "clip" or "image"."""
    if unit == "clip":
        return text
    text = re.sub(r"\ba clip\b", f"{'an' if unit[0] in 'aeiou' else 'a'} {unit}", text)
    return re.sub(r"\b([Cc])lip(s?)\b", lambda m: (unit.capitalize() if m[1] == "C" else unit) + m[2], text)


def join(parts: list[str], last: str = "and") -> str:
    """Return "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}" if parts else ""
