"""Vector pictures: marks stand where their values are, and are well-formed whatever they say."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.report.palette import COLOURS, styles
from search.report.svg import STYLE, Canvas, Scale, shape_path

numbers = st.floats(-1e3, 1e3)


def canvas() -> Canvas:
    return Canvas(Scale(0, 10, [(0, "0"), (10, "<10>")], "a & b"), Scale(-1, 1, [(0, "0")], "up"), 400, 300)


def test_corners_of_the_scales_are_corners_of_the_frame() -> None:
    one = canvas()
    assert (one.x(0), one.x(10)) == (one.left, one.width - one.right)
    assert (one.y(-1), one.y(1)) == (one.height - one.bottom, one.top)


@given(st.lists(st.tuples(numbers, numbers, st.text(max_size=12)), max_size=6))
def test_pictures_are_well_formed_whatever_they_say(marks: list[tuple[float, float, str]]) -> None:
    one = canvas()
    one.frame([(5, "5")], "second")
    one.stairs([(x, y) for x, y, _ in marks])
    for x, y, text in marks:
        written = "".join(character for character in text if character.isprintable())
        one.mark(x, y, "star", 5, "m0", written)
        one.text(1, 1, written)
        one.line([(x, y), (0, 0)], "l1", written)
    root = ElementTree.fromstring(one.render('a "label" <b>'))
    assert root.get("aria-label") == 'a "label" <b>'


@pytest.mark.parametrize("shape", sorted({look.symbol for look in styles("abcdefghi").values()} | {"star"}))
def test_every_shape_of_the_palette_can_be_drawn(shape: str) -> None:
    assert shape_path(shape, 10, 10, 5).startswith("M") and shape_path(shape, 10, 10, 5).endswith("Z")


def test_colours_are_there_for_light_and_for_dark() -> None:
    light, dark = STYLE.split("@media(prefers-color-scheme:dark)", 1)
    for place, colour in enumerate(COLOURS):
        assert f"--m{place}:{colour};" in light and f"--m{place}:#" in dark
