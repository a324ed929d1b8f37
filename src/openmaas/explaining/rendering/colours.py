"""One diverging scale for all pictures: blue speaks for the answer, orange against it.

Blue and orange are told apart by those who see no red or green. Stops after ColorBrewer (Brewer
and Harrower 2003): the blue of RdBu, the orange of PuOr. On a dark page what weighs more is
brighter, on a light one darker, so that what weighs nothing looks like the page itself.
"""

from __future__ import annotations

from typing import NamedTuple

LEVELS = 10  # steps from nothing to the greatest; finer ones nobody tells apart

_FOR = {
    False: ("#ffffff", "#d1e5f0", "#92c5de", "#4393c3", "#2166ac"),
    True: ("#16181d", "#123a5e", "#2166ac", "#4393c3", "#92c5de"),
}
_AGAINST = {
    False: ("#ffffff", "#fee0b6", "#fdb863", "#e08214", "#b35806"),
    True: ("#16181d", "#58300a", "#b35806", "#e08214", "#fdb863"),
}


class Look(NamedTuple):
    """What is not attribution: the page, what is written on it, and lines."""

    page: str
    ink: str
    faint: str
    line: str


_LOOKS = {
    False: Look(page="#ffffff", ink="#1b1b1b", faint="#595959", line="#c8c8c8"),
    True: Look(page="#16181d", ink="#e8e8e8", faint="#a9aeb6", line="#454a53"),
}


def look(dark: bool) -> Look:
    return _LOOKS[dark]


def level(value: float, greatest: float) -> int:
    """Which step of the scale, from −``LEVELS`` to ``LEVELS``; 0 where all is nothing."""
    if not greatest > 0:
        return 0
    return round(max(-1.0, min(1.0, value / greatest)) * LEVELS)


def background(step: int, dark: bool) -> str:
    """The colour of a level, as #rrggbb."""
    stops = (_FOR if step >= 0 else _AGAINST)[dark]
    place = min(abs(step), LEVELS) / LEVELS * (len(stops) - 1)
    at = min(int(place), len(stops) - 2)
    share = place - at
    mixed = (
        round(low + (high - low) * share)
        for low, high in zip(channels(stops[at]), channels(stops[at + 1]), strict=True)
    )
    return hexadecimal(*mixed)


def ink(behind: str) -> str:
    """Black or white, whichever is legible on a colour: one of them always reaches 4.58:1."""
    return max(("#000000", "#ffffff"), key=lambda text: contrast(text, behind))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def hexadecimal(red: int, green: int, blue: int) -> str:
    return f"#{red:02x}{green:02x}{blue:02x}"


def _luminance(colour: str) -> float:
    red, green, blue = (
        part / 12.92 if (part := channel / 255) <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for channel in channels(colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
