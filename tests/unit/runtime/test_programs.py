"""Programs that are damaged or do something else are refused."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import cod_jax
from cod_jax.errors import UserError
from cod_jax.runtime import programs as runtime_programs
from cod_jax.runtime.folder import read_description
from tests.model_fixtures import gradient_image
from tests.unit.runtime.damage import replace_file, use


def test_the_platform_must_be_there(folder, monkeypatch):
    monkeypatch.setattr(runtime_programs, "current_platform", lambda: "cuda")
    with pytest.raises(UserError, match=r"is compiled for cpu, and JAX computes on cuda here; .*--platforms cuda"):
        cod_jax.load(folder)


def program_of(function: Callable, batch: Any, platform: str = "cpu", weight: str = "w") -> bytes:
    """A program of (weights, batch); the batch by its dtypes and symbolic shapes of b, h and w."""
    scope = export.SymbolicScope()
    taken = [jax.ShapeDtypeStruct(export.symbolic_shape(sizes, scope=scope), dtype) for dtype, sizes in batch]
    weights = {weight: jax.ShapeDtypeStruct((2,), np.float32)}
    exported = export.export(jax.jit(function), platforms=[platform])(weights, *taken)
    return bytes(exported.serialize())


PICTURES, SYMBOLS = (np.uint8, "b, 16*h, 16*w, 3"), (np.int32, "b, h, w")


def to_symbols(weights, pictures):
    return pictures[:, ::16, ::16, 0].astype(np.int32)


def to_pictures(weights, symbols):
    return jnp.repeat(jnp.repeat(jnp.stack([symbols] * 3, -1), 16, 1), 16, 2).astype(np.uint8)


def test_a_program_that_calls_other_code_is_refused(copy):
    def program(weights, pictures):
        return to_symbols(weights, pictures) + jnp.linalg.cholesky(jnp.eye(3))[0, 0].astype(np.int32)

    replace_file(copy, "encode-cpu-0.stablehlo", program_of(program, [PICTURES]))
    with pytest.raises(UserError, match="calls code outside of itself"):
        use(copy)


def test_a_program_for_other_weights_is_refused_before_they_take_device_memory(copy, monkeypatch):
    monkeypatch.setattr(jax, "device_put", lambda *_: pytest.fail("weights were placed before they were checked"))
    replace_file(copy, "encode-cpu-0.stablehlo", program_of(to_symbols, [PICTURES]))
    with pytest.raises(UserError, match=r"takes other weights than encode.safetensors holds"):
        use(copy)


def test_a_program_for_another_platform_is_refused(copy):
    replace_file(copy, "encode-cpu-0.stablehlo", program_of(to_symbols, [PICTURES], platform="cuda"))
    with pytest.raises(UserError, match=r"encode-cpu-0.stablehlo is made for cuda, not for cpu; make the folder again"):
        use(copy)


@pytest.mark.parametrize(
    ("function", "batch"),
    [
        (lambda weights, pictures: jnp.sum(pictures), [PICTURES]),
        (lambda weights, pictures: to_symbols(weights, pictures).astype(np.float32), [PICTURES]),
        (lambda weights, pictures: to_symbols(weights, pictures)[..., None], [PICTURES]),
        (lambda weights, pictures: to_symbols(weights, pictures)[:, :-1], [PICTURES]),
        (lambda weights, pictures: [to_symbols(weights, pictures)], [PICTURES]),
        (lambda weights, pictures: (to_symbols(weights, pictures), pictures), [PICTURES]),
        (to_symbols, [(np.float32, PICTURES[1])]),
        (to_symbols, [(np.uint8, "b, 16*h, 16*w, 4")]),
        (to_symbols, [(np.uint8, "b, 16, 16, 3")]),
        (lambda weights, pictures: to_symbols(weights, pictures[..., None]), [(np.uint8, "b, 16*h, 16*w")]),
        (lambda weights, pictures, levels: to_symbols(weights, pictures), [PICTURES, (np.int32, "b")]),
        (lambda weights: weights["w"], []),
        (to_pictures, [SYMBOLS]),
    ],
)
def test_a_program_of_another_form_is_refused(copy, function, batch):
    replace_file(copy, "encode-cpu-0.stablehlo", program_of(function, batch))
    message = f"{copy / 'encode-cpu-0.stablehlo'} takes or returns other arrays than programs that encode do; make"
    with pytest.raises(UserError, match=message):
        use(copy)


def test_a_program_that_decodes_to_something_else_is_refused(copy):
    def use_decoder() -> None:
        programs = runtime_programs.Programs(copy, read_description(copy), "decode")
        programs(np.zeros((1, 1, 1), np.int32), (1, 1))

    def program(weights, symbols):
        return to_pictures(weights, symbols)[..., :1]

    replace_file(copy, "decode-cpu-0.stablehlo", program_of(program, [SYMBOLS]))
    with pytest.raises(UserError, match=r"decode-cpu-0.stablehlo takes or returns other arrays than programs that dec"):
        use_decoder()
    replace_file(copy, "decode-cpu-0.stablehlo", program_of(to_pictures, [SYMBOLS]))
    with pytest.raises(UserError, match=r"takes other weights than decode.safetensors holds"):
        use_decoder()


def test_weights_are_taken_once_and_results_stay_on_the_device_if_asked_to(folder, monkeypatch):
    programs = runtime_programs.Programs(folder, read_description(folder), "encode")
    pictures = gradient_image(32, 48)[None]
    symbols = programs.on_device(jax.device_put(pictures), (2, 3))
    assert isinstance(symbols, jax.Array)
    np.testing.assert_array_equal(symbols, cod_jax.load(folder).encode(pictures)[..., 0])
    monkeypatch.setattr(runtime_programs, "read_file", None)
    monkeypatch.setattr(runtime_programs, "read_weights", None)
    np.testing.assert_array_equal(programs(pictures, (2, 3)), symbols)


def test_a_program_that_this_jax_cannot_read_is_explained(copy, folder):
    data = (folder / "encode-cpu-0.stablehlo").read_bytes()
    for broken in (b"", b"\x00" * 100, data[:100], data[: len(data) // 2]):
        replace_file(copy, "encode-cpu-0.stablehlo", broken)
        with pytest.raises(UserError, match=f"cannot be read by jax {jax.__version__}; it was made with"):
            use(copy)
