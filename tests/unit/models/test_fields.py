"""Descriptions are built from plain values, and their errors name the field."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest

from cod_jax.errors import UserError
from cod_jax.models.fields import Part, from_mapping, require_at_least, require_range


class Shape(Part):
    """A family of two kinds."""

    FAMILY: ClassVar[Mapping[str, str]] = {"circle": f"{__name__}:Circle", "square": f"{__name__}:Square"}


@dataclasses.dataclass(frozen=True)
class Circle(Shape):
    """The default kind."""

    kind: Literal["circle"] = "circle"
    radius: float = 1.0

    def __post_init__(self):
        require_at_least(self, 0, "radius")


@dataclasses.dataclass(frozen=True)
class Square(Shape):
    """The other kind."""

    kind: Literal["square"] = "square"
    side: int = 2


@dataclasses.dataclass(frozen=True)
class Triangle(Shape):
    """A kind that the family does not list."""

    kind: str
    side: int


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A description of descriptions."""

    frame: Shape = dataclasses.field(default_factory=Circle)
    shapes: tuple[Shape, ...] = ()
    sizes: tuple[int, ...] = (1, 2)
    title: str | None = None
    dashed: bool = False
    scale: float = 1.0
    style: Literal["thin", "thick"] = "thin"


def build(values: Any, **options: bool) -> Drawing:
    return from_mapping(Drawing, values, "drawing", **options)


def test_missing_fields_take_their_defaults():
    assert build({}) == Drawing()


def test_the_kind_decides_the_class_and_the_first_of_the_family_is_the_default():
    assert build({"frame": {"kind": "square", "side": 5}}).frame == Square(side=5)
    assert build({"frame": {"radius": 3}}).frame == Circle(radius=3.0)


def test_descriptions_are_taken_as_they_are():
    square = Square(side=7)
    assert build({"frame": square, "shapes": (square,)}) == Drawing(square, (square,))


def test_a_tuple_may_hold_descriptions_of_several_kinds():
    drawing = build({"shapes": [{"kind": "square"}, {"kind": "circle", "radius": 2}, {}]})
    assert drawing.shapes == (Square(), Circle(radius=2.0), Circle())


def test_classes_of_other_modules_are_named_in_full():
    kind = f"{__name__}:Triangle"
    assert build({"frame": {"kind": kind, "side": 4}}).frame == Triangle(kind, 4)
    with pytest.raises(UserError, match=r"install not_here, import not_here.shapes first or list not_here"):
        build({"frame": {"kind": "not_here.shapes:Mine"}})


def test_whole_numbers_become_floats_and_lists_become_tuples():
    drawing = build({"scale": 3, "sizes": [4, 5]})
    assert isinstance(drawing.scale, float)
    assert drawing.sizes == (4, 5)


def test_none_stands_for_no_value_where_the_field_allows_it():
    assert build({"title": None}).title is None
    assert build({"title": "a"}).title == "a"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (3, "drawing must hold the fields frame, shapes, .* got 3"),
        ({"styl": "thin"}, r"unknown field drawing\.styl; did you mean drawing\.style\?"),
        ({"zzz": 1}, r"unknown field drawing\.zzz; known fields are frame, shapes"),
        ({"style": "dotted"}, r"drawing\.style must be one of thin, thick, got 'dotted'"),
        ({"scale": "2"}, r"drawing\.scale must be of type float, got '2'"),
        ({"scale": True}, r"drawing\.scale must be of type float, got True"),
        ({"scale": 10**400}, r"drawing\.scale must fit a float, got a number of 401 digits"),
        ({"scale": float("nan")}, r"drawing\.scale must be a finite number, got nan"),
        ({"scale": float("inf")}, r"drawing\.scale must be a finite number, got inf"),
        ({"sizes": (1, "2")}, r"drawing\.sizes\[1\] must be of type int, got '2'"),
        ({"sizes": 3}, r"drawing\.sizes must be a list or a tuple, got 3"),
        ({"dashed": 1}, r"drawing\.dashed must be of type bool, got 1"),
        ({"title": 5}, r"drawing\.title must be of type str, got 5"),
        ({"frame": 5}, r"drawing\.frame must hold a kind and its fields, got 5"),
        ({"frame": {"kind": "circel"}}, r"drawing\.frame\.kind must be one of circle, square, or package.module:Class"),
        ({"frame": {"kind": 5}}, r"drawing\.frame\.kind must be one of circle, square, .* got 5"),
        (
            {"frame": {"kind": "square", "radius": 1.0}},
            r"frame\.radius; known fields of kind square are kind, side",
        ),
        ({"frame": {"kind": "square", "side": True}}, r"drawing\.frame\.side must be of type int, got True"),
        ({"frame": {"radius": -1.0}}, r"drawing\.frame: radius must be at least 0, got -1\.0"),
        ({"shapes": [{}, {"radius": -1.0}]}, r"drawing\.shapes\[1\]: radius must be at least 0, got -1\.0"),
    ],
)
def test_errors_name_the_field_and_what_it_takes(values, message):
    with pytest.raises(UserError, match=message):
        build(values)


def test_ranges_are_checked_by_name():
    require_range(Square(side=4), {"side": 4})
    with pytest.raises(UserError, match="side must be between 1 and 3, got 4"):
        require_range(Square(side=4), {"side": 3})
    with pytest.raises(UserError, match="side must be between 1 and 3, got 0"):
        require_range(Square(side=0), {"side": 3})
