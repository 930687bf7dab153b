"""The palettes read at 4.5 : 1, the icons can be drawn, and a widget knows which theme it stands in."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtGui import QColor, QFontInfo, QFontMetrics
from PySide6.QtWidgets import QApplication, QFrame, QLabel, QPushButton

from app import theme

ICONS = sorted(path.stem for path in (Path(theme.__file__).parent.parent / "assets" / "icons").glob("*.svg"))
PAIRS = [
    *[(text, ground) for text in ("text", "dim", "accent") for ground in ("background", "panel", "selection")],
    *[(text, "panel") for text in ("train", "validation", "frozen", "trainable", "danger")],
    *[(text, "selection") for text in ("frozen", "trainable", "danger")],
    ("on_accent", "accent"),
    ("on_accent", "accent_hover"),
    ("frozen", "frozen_background"),
    ("trainable", "trainable_background"),
    ("danger", "danger_background"),
    ("text", "danger_background"),
]


@pytest.mark.parametrize("colors", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_reads_on_its_ground(colors: theme.Palette, text: str, ground: str) -> None:
    assert contrast(getattr(colors, text), getattr(colors, ground)) >= 4.5


@pytest.mark.window
def test_dim_words_on_a_grey_chip_read_in_both_themes() -> None:
    for colors in (theme.LIGHT, theme.DARK):
        assert contrast(colors.dim, colors.line) >= 3.5


@pytest.mark.window
@pytest.mark.parametrize("name", ICONS)
def test_every_icon_can_be_drawn_in_any_colour(qapp: QApplication, name: str) -> None:
    image = theme.icon(name, "#123456").pixmap(24, 24).toImage()
    assert any(image.pixelColor(x, y).alpha() for x in range(24) for y in range(24))


@pytest.mark.window
def test_an_icon_takes_the_colour_asked_for(qapp: QApplication) -> None:
    assert theme.icon("stop", "#ff0000").pixmap(24, 24).toImage().pixelColor(12, 12) == QColor("#ff0000")


@pytest.mark.window
def test_figures_are_tabular_in_the_shipped_font(qapp: QApplication) -> None:
    font = theme.text_font()
    assert QFontInfo(font).family() == "Inter"
    metrics = QFontMetrics(font)
    assert metrics.horizontalAdvance("1111") == metrics.horizontalAdvance("8888")


@pytest.mark.window
def test_a_widget_knows_its_theme_and_follows_a_change(qtbot, qapp: QApplication) -> None:
    label = QLabel("loss")
    qtbot.addWidget(label)
    theme.apply(qapp, "dark")
    assert theme.palette_of(label) is theme.DARK
    theme.apply(qapp, "light")
    assert theme.palette_of(label) is theme.LIGHT
    qapp.setStyleSheet("")


@pytest.mark.window
def test_the_primary_button_is_filled_with_the_accent(qtbot, themed: QApplication) -> None:
    button = QPushButton()
    button.setProperty("kind", "primary")
    button.resize(120, 30)
    qtbot.addWidget(button)
    assert button.grab().toImage().pixelColor(60, 15) == QColor(theme.LIGHT.accent)
    theme.set_property(button, "kind", "")
    assert button.grab().toImage().pixelColor(60, 15) == QColor(theme.LIGHT.panel)


@pytest.mark.window
@pytest.mark.parametrize("kind", ["", "primary", "flat"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_button_that_cannot_be_pressed_looks_so(qtbot, themed: QApplication, scheme: str, kind: str) -> None:
    theme.apply(themed, scheme)
    colors = theme.DARK if scheme == "dark" else theme.LIGHT
    panel, button = QFrame(), QPushButton("Resume")
    panel.setProperty("role", "panel")
    qtbot.addWidget(panel)
    button.setParent(panel)
    button.setProperty("kind", kind)
    button.setEnabled(False)
    button.resize(120, 30)
    button.ensurePolished()
    image = panel.grab(button.geometry()).toImage()
    inner = [image.pixelColor(x, y).name() for x in range(10, 110) for y in range(6, 24)]
    loudest = max(contrast(color, colors.panel) for color in inner)
    assert contrast(colors.faint, colors.panel) * 0.8 < loudest <= contrast(colors.faint, colors.panel) + 0.1
    assert loudest < contrast(colors.dim, colors.panel) / 2


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2, relative luminance)."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
