"""The numbers of a report."""

from cod_jax.evaluation.report.columns import in_columns, short


def test_columns_follow_the_order_of_the_pictures():
    rows = [
        {"name": "b", "bpp": 0.12345678, "file": "f"},
        {"name": "a", "bpp": 2, "psnr": None},
        {"name": "c", "bpp": 1},
    ]
    assert in_columns({"images": rows}, {"a": 0, "b": 1}) == {"bpp": [2, 0.123457]}
    assert short(1234567) == 1234567
