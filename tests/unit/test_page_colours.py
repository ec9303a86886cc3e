"""The colours of the status page can be told apart, light and dark (WCAG 2.2, 1.4.3: 4.5 to 1)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import agent.api

CSS = (Path(agent.api.__file__).parent / "page.html").read_text()
LIGHT, DARK = (dict(re.findall(r"--([\w-]+):(#\w+)", block)) for block in re.findall(r":root\{(.*?)\}", CSS))
PAIRS = [(ink, paper) for paper in ("paper", "card") for ink in ("ink", "quiet", "accent", "good", "busy", "bad")]


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG defines it."""
    digits = colour.removeprefix("#")
    wide = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(wide[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("palette", [LIGHT, LIGHT | DARK], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(palette: dict[str, str]) -> None:
    """Each colour of text on each ground."""
    for ink, paper in [*PAIRS, ("console-ink", "console")]:
        lighter, darker = sorted((luminance(palette[ink]), luminance(palette[paper])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (ink, paper)
