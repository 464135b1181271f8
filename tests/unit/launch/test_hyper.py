import pytest

from cod_jax.errors import UserError
from cod_jax.launch import hyper


def test_products_vary_the_last_field_fastest():
    points = hyper.product([hyper.sweep("a", [1, 2]), hyper.fixed("b", 0), hyper.sweep("c", ["x", "y"])])
    assert points == [
        {"a": 1, "b": 0, "c": "x"},
        {"a": 1, "b": 0, "c": "y"},
        {"a": 2, "b": 0, "c": "x"},
        {"a": 2, "b": 0, "c": "y"},
    ]


def test_sweeps_are_zipped_and_chained():
    assert hyper.zipit([hyper.sweep("a", range(2)), hyper.fixed("b", 5, length=2)]) == [
        {"a": 0, "b": 5},
        {"a": 1, "b": 5},
    ]
    assert hyper.chainit([hyper.sweep("a", [1]), hyper.product([])]) == [{"a": 1}, {}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hyper.sweep("a", []), "a has no values"),
        (lambda: hyper.sweep("a", "xy"), "a list of values for a, got the text 'xy'"),
        (lambda: hyper.zipit([hyper.sweep("a", [1, 2]), hyper.fixed("b", 0)]), "equal length, got 2, 1 points"),
        (lambda: hyper.product([hyper.fixed("a", 1), hyper.sweep("a", [1, 2])]), "combined sweeps set a; leave it out"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
