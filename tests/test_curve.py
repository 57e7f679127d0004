"""Training curves drawn with dots, checked dot by dot."""

import pytest

from headai.curve import draw_curves


def drawing(curves, *, width=19, height=3):
    return draw_curves(curves, width=width, height=height, styles={"train": "blue", "valid": "green"})


def test_without_points_there_is_nothing_to_draw():
    assert drawing({}).plain == ""
    assert drawing({"train": []}).plain == ""


def test_a_falling_line_goes_from_the_upper_left_to_the_lower_right():
    assert drawing({"train": [(0, 1.0), (9, 0.0)]}).plain.splitlines() == [
        "        1 ┤⠉⠒⠤⣀⠀⠀⠀⠀",
        "        0 ┤⠀⠀⠀⠀⠉⠒⠤⣀",
        "           1round 10",
    ]


def test_one_point_is_one_dot_at_the_left():
    assert drawing({"train": [(0, 0.5)]}).plain.splitlines()[:2] == [
        "        1 ┤⠀⠀⠀⠀⠀⠀⠀⠀",
        "        0 ┤⠁⠀⠀⠀⠀⠀⠀⠀",
    ]


def test_a_jump_leaves_no_gap():
    picture = drawing({"valid": [(0, 0.0), (4, 0.0), (5, 1.0), (9, 1.0)]}).plain.splitlines()
    assert picture[0][11:].strip("⠀") != ""
    dots = [[ord(c) - 0x2800 for c in line[11:]] for line in picture[:2]]
    for column in range(8):
        assert dots[0][column] or dots[1][column]


def test_a_curve_that_starts_late_is_empty_before():
    line = drawing({"train": [(0, 0.0), (9, 0.0)], "valid": [(5, 1.0), (9, 1.0)]}).plain.splitlines()[0]
    assert line[11:15] == "⠀⠀⠀⠀"
    assert "⠀" not in line[16:]


def test_the_later_curve_colours_what_both_touch():
    text = drawing({"train": [(0, 1.0), (9, 0.0)], "valid": [(0, 1.0), (9, 0.0)]})
    assert {span.style for span in text.spans} == {"dim", "green"}


@pytest.mark.parametrize("width", [0, 5, 12])
def test_a_terminal_that_is_too_narrow_breaks_nothing(width):
    assert drawing({"train": [(0, 1.0), (99, 0.1)]}, width=width).plain.count("\n") == 2
