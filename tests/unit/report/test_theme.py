"""The theme: contrast in light and dark, and colours that colour-blind people tell apart."""

from __future__ import annotations

import itertools
import re

import numpy as np
import plotly.graph_objects as go
import pytest

from autoprune.report import theme

MODES = tuple(theme.TOKENS)
#: What a person without one kind of cones sees of linear RGB (Machado, Oliveira and Fernandes, A physiologically-based
#: model for simulation of color vision deficiency, 2009).
SEEN = {
    "all": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Ratio of WCAG 2."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(seen @ linear(colour), 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("mode", MODES)
def test_text_and_controls_stand_out(mode: str) -> None:
    colours = theme.TOKENS[mode]
    grounds = ("page", "surface", "accent-wash")
    pairs = [(text, ground) for text in ("ink", "soft", "accent") for ground in grounds]
    pairs += [("warn", "warn-wash"), ("good", "good-wash"), ("on-accent", "accent")]
    poor = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert not {pair: ratio for pair, ratio in poor.items() if ratio < 4.5}
    assert min(contrast(colours["edge"], colours[ground]) for ground in ("page", "surface")) >= 3


@pytest.mark.parametrize("mode", MODES)
def test_traces_stand_out(mode: str) -> None:
    traces = {*theme.ORIGIN_COLOURS.values(), *theme.SERIES, theme.ACCENT, theme.FAINT, theme.BAD}
    assert min(contrast(colour, theme.TOKENS[mode]["surface"]) for colour in traces) >= 3


@pytest.mark.parametrize("seen", SEEN)
def test_origins_are_told_apart_by_everybody(seen: str) -> None:
    """By colour, or by the symbol."""
    for one, other in itertools.combinations(theme.ORIGIN_COLOURS, 2):
        colours = (lab(theme.ORIGIN_COLOURS[origin], SEEN[seen]) for origin in (one, other))
        apart = float(np.linalg.norm(next(colours) - next(colours)))
        assert theme.ORIGIN_SYMBOLS[one] != theme.ORIGIN_SYMBOLS[other]
        assert apart > 7, (one, other, seen)


def test_both_modes_have_the_same_properties_and_the_rules_use_no_others() -> None:
    assert len({frozenset(tokens) for tokens in theme.TOKENS.values()}) == 1
    text = theme.stylesheet() + theme.static_text("report.css")
    assert set(re.findall(r"var\(--([a-z-]+)\)", text)) <= set(theme.TOKENS["light"])
    assert not re.findall(r"#[0-9a-f]{3,6}\b", theme.static_text("theme.css") + theme.static_text("report.css"))
    assert text.count("prefers-color-scheme: dark") == 1
    assert ":root[data-theme='dark']" in text


def test_plotly_accepts_the_templates() -> None:
    for mode, template in theme.templates().items():
        found = go.layout.Template(template)
        assert found.layout.paper_bgcolor == "rgba(0,0,0,0)"
        assert found.layout.font.color == theme.TOKENS[mode]["ink"]
