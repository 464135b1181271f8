import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cod_jax.coding.bits import pack
from cod_jax.diffusion.samplers import adams_bashforth_coefficients, sample, sampling_timesteps
from cod_jax.interop import load_reference
from tests.parity.cases import Case, assert_close, cases

ANALYTIC = Case("samplers_analytic")


def parse(name: str) -> dict:
    pattern = r"(euler|adam)_n(\d+)_last([\d.]+|None)_shift(\d+)(?:_order(\d))?"
    match = re.fullmatch(pattern, name)
    assert match, name
    kind, num_steps, last_step, time_shift, order = match.groups()
    return {
        "method": "adams" if kind == "adam" else "euler",
        "num_steps": int(num_steps),
        "last_step": None if last_step == "None" else float(last_step),
        "time_shift": float(time_shift),
        "order": int(order or 1),
    }


@pytest.mark.parametrize("name", ANALYTIC.meta["cases"])
def test_sampler_on_an_affine_field_matches_the_published_one(name):
    arguments = parse(name)
    matrix, bias = ANALYTIC.arrays["A"], ANALYTIC.arrays["b"]

    def velocity(x, t, condition):
        return jnp.einsum("ij,bhwj->bhwi", matrix, x) + bias[None, None, None] * t[:, None, None, None] + condition

    timesteps = sampling_timesteps(
        arguments["num_steps"], last_step=arguments["last_step"], time_shift=arguments["time_shift"]
    )
    np.testing.assert_allclose(timesteps, ANALYTIC.arrays[f"{name}__timesteps"], atol=1e-6)
    # The float32 coefficients of orders 3 and 4 cancel.
    tolerance = 1e-5 if arguments["order"] <= 2 else 1e-3
    if f"{name}__coeffs" in ANALYTIC.arrays:
        expected = ANALYTIC.arrays[f"{name}__coeffs"]
        coefficients = adams_bashforth_coefficients(timesteps, arguments["order"])
        np.testing.assert_allclose(coefficients, expected, atol=tolerance, rtol=tolerance)
    result = sample(
        velocity,
        ANALYTIC.nhwc("noise"),
        0.5 * ANALYTIC.nhwc("condition"),  # what the field's condition encoder makes of it
        0.5 * ANALYTIC.nhwc("uncondition"),
        guidance_scale=ANALYTIC.meta["guidance"],
        **arguments,
    )
    assert_close(np.moveaxis(np.asarray(result), -1, 1), ANALYTIC.arrays[f"{name}__result"], tolerance, tolerance)


@pytest.mark.parametrize(("folder", "name"), cases("sampler_*"))
def test_sampler_on_the_published_network(folder: Path, name: str):
    case = Case(name, folder)
    model = load_reference(case.meta["class"].split(" ")[0], case.config, case.weights())
    settings = case.meta["sampler"]

    def condition_of(image01):
        z_q, indices = model.codec.quantize(model.codec.encode(image01))
        if "bitstream" in case.arrays and image01.min() >= 0:
            bits = model.config.codec.symbols.bits or 0
            assert pack(indices, bits) == case.arrays["bitstream"].tobytes()
        return model.codec.decode(z_q)

    def run(params, noise, condition, unconditional):
        return sample(
            model.functional.bind(params).velocity,
            noise,
            condition,
            unconditional,
            num_steps=settings["num_steps"],
            method="euler" if settings["kind"] == "euler" else "adams",
            order=settings.get("order", 1),
            guidance_scale=settings["guidance"],
            guidance_interval=tuple(settings["guidance_interval"]),
            last_step=settings["last_step"],
            time_shift=settings["timeshift"],
        )

    condition, null = condition_of(case.image01()), condition_of(np.full_like(case.image01(), -1.0))
    with jax.default_matmul_precision("highest"):
        result = jax.jit(run)(model.params, case.nhwc("noise_f16"), condition, null)
    case.check_network("sample", result)
