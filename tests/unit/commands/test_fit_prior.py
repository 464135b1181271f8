"""The command that fits a prior."""

from pathlib import Path

import jax
import numpy as np
import pytest

from cod_jax import images
from cod_jax.codec import from_bundle
from cod_jax.coding import container
from cod_jax.coding.entropy import EntropyModel
from cod_jax.commands.main import main
from cod_jax.errors import UserError
from cod_jax.model_folder import fitting
from cod_jax.model_folder.bundle import load_bundle, save_bundle
from cod_jax.model_folder.fitting import Sample
from cod_jax.model_folder.prior_file import PRIOR_FILE
from cod_jax.models import build_model
from cod_jax.models.patch_transform import patch_moments
from tests.coding_fixtures import smooth_grid
from tests.model_fixtures import gradient_image, numpy_params, save_tiny_model, tiny_codec, tiny_compact_config


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_tiny_model(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve pictures of which one size is encoded."""
    picture = gradient_image(160, 150)
    for index in range(12):
        images.save_png(tmp_path / "photos" / f"{index}.png", picture[index : 140 + index, index:])
    return tmp_path / "photos"


def test_a_prior_is_fitted_and_used(model: Path, photos: Path, capsys):
    (photos / "broken.png").write_text("no picture")
    images.save_png(photos / "small.png", gradient_image(140, 127))
    assert main(["fit-prior", "--model", str(model), "--images", str(photos)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("left out 2 of 14 pictures, for example ")
    assert out[1] == f"fitted the prior to {11 * 64} symbols of 11 pictures"
    assert out[2].startswith("bits per symbol of 1 held-out pictures: fixed 4, static ")
    bundle = load_bundle(model)
    assert out[3] == f"the fingerprint of {model} is now {bundle.symbol_coder().fingerprint[:16]}"

    picture = gradient_image(128, 128)
    data = from_bundle(bundle).compress(picture)
    raw = tiny_codec().compress(picture)
    assert container.read(data).mode == "context"
    assert len(data) < 0.8 * len(raw)
    np.testing.assert_array_equal(from_bundle(bundle).encode(picture), tiny_codec().encode(picture))


def test_a_prior_is_replaced_only_by_force(model: Path, photos: Path, capsys, monkeypatch):
    (model / PRIOR_FILE).write_bytes(b"mine, and damaged")
    assert main(["fit-prior", "--model", str(model), "--images", str(photos)]) == 2
    assert "has a prior, and files coded with it need it; pass --force to replace it" in capsys.readouterr().err
    assert (model / PRIOR_FILE).read_bytes() == b"mine, and damaged"
    monkeypatch.setattr(fitting, "_encode_centres", lambda *_: iter([Sample(smooth_grid(8, 8, 16), 0, 0)]))
    assert main(["fit-prior", "--model", str(model), "--images", str(photos), "--force"]) == 0
    assert capsys.readouterr().out.startswith("fitted the prior to 64 symbols of 1 pictures\n")
    assert load_bundle(model).prior is not None


def test_of_few_pictures_each_counts_at_every_level(photos: Path):
    unused: list[str] = []
    (photos / "1.png").write_text("no picture")
    names, encode = ["1.png", "2.png", "3.png"], lambda image_uint8, level: np.full((8, 8, 1), level)
    samples = list(fitting._encode_centres(encode, photos, names, range(3), fitting.MAX_SYMBOLS, unused))
    assert [sample[1:] for sample in samples] == [(0, 0), (1, 1), (1, 0), (2, 1), (2, 0), (0, 1)]
    assert all(np.all(sample.symbols == sample.level) for sample in samples)
    assert len(unused) == 1


@pytest.mark.slow
def test_the_prior_of_a_factorized_model_gains_a_mode_at_every_level(tmp_path: Path, photos: Path, capsys):
    model = tmp_path / "compact"
    config = tiny_compact_config(step=0.1, num_levels=2)
    moments = patch_moments(gradient_image(160, 160)[top : top + 144, :144] for top in range(0, 16, 4))
    params = config.codec.fit(numpy_params(build_model(config).shapes), moments, config.denoiser)
    save_bundle(model, config, jax.tree.map(np.float32, params), training={})
    before = load_bundle(model)
    command = ["fit-prior", "--model", str(model), "--images", str(photos)]
    assert main(command) == 2
    assert "has a prior, and files coded with it need it; pass --force to replace it" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    out = capsys.readouterr().out
    assert f"fitted the prior to {2 * 11 * 64 * 24} symbols of 11 pictures" in out
    assert "held-out pictures: factorized" in out
    after = load_bundle(model)
    assert [entropy_model.mode for entropy_model in after.symbol_coder().models] == ["factorized", "predictive"]
    assert before.prior
    assert after.prior
    for name, table in before.prior.tables.items():
        np.testing.assert_array_equal(after.prior.tables[name], table)
    picture = gradient_image(128, 128)
    old, new = from_bundle(before), from_bundle(after)
    for quality in (1, 2):
        symbols = new.encode(picture, level=quality - 1)
        sizes = [len(codec.compress(picture, quality=quality)) for codec in (old, new)]
        assert sizes[1] < 0.8 * sizes[0]
        data = new.compress(picture, quality=quality)
        assert container.read(data).mode == "predictive"
        decoded = after.symbol_coder().decode(data, max_pixels=2**20)
        assert decoded.level == quality - 1
        np.testing.assert_array_equal(decoded.symbols, symbols)
    # Fitting again keeps the tables of the densities, and gives the same prior.
    assert main([*command, "--force"]) == 0
    assert load_bundle(model).symbol_coder().fingerprint == after.symbol_coder().fingerprint


@pytest.mark.parametrize(
    ("model_name", "photos_name", "message"),
    [
        ("nothing", "photos", "does not exist; give a model folder"),
        ("model", "nothing", "nothing does not exist; give a folder of images"),
        ("model", "model", "model holds no pictures; give a folder of JPEG"),
        ("model", "bad", "none of the 1 pictures can be used, for example "),
    ],
)
def test_what_cannot_be_fitted_is_said(model: Path, tmp_path: Path, capsys, model_name, photos_name, message: str):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "broken.png").write_text("no picture")
    (tmp_path / "photos").mkdir()
    status = 1 if photos_name == "bad" else 2  # all pictures were tried
    assert main(["fit-prior", "--model", str(tmp_path / model_name), "--images", str(tmp_path / photos_name)]) == status
    err = capsys.readouterr().err
    assert err.startswith("cod fit-prior: error: ")
    assert message in err
    assert not (model / PRIOR_FILE).exists()


class NotFitted(EntropyModel):
    """An entropy model of another package that is made by other means."""

    from_tables = encode = decode = None  # pyright: ignore


class Unusable(NotFitted):
    """Its tables are refused when they are read again."""

    @classmethod
    def from_tables(cls, symbols, tables):
        raise UserError("the tables are upside down")

    @classmethod
    def fit(cls, grids, symbols):
        return cls()

    def arrays(self):
        return {"t": np.zeros(3, np.int32)}


def test_an_entropy_model_that_cannot_be_fitted_is_refused_before_pictures_are_encoded(model: Path, capsys):
    kind = f"{__name__}:NotFitted"
    assert main(["fit-prior", "--model", str(model), "--images", "nothing", "--entropy-model", kind]) == 2
    assert f"{kind} cannot be fitted to pictures; define its class method fit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ([], "got symbols of 4 bits"),
        (["--entropy-model", "examples.own_entropy_model:AboveModel"], "got examples.own"),
    ],
)
def test_networks_are_for_factorized_bottlenecks(model: Path, photos: Path, capsys, options: list[str], got: str):
    arguments = ["--model", str(model), "--images", str(photos), "--network-steps", "9"]
    assert main(["fit-prior", *arguments, *options]) == 2
    error = capsys.readouterr().err
    assert f"expected a model with a factorized bottleneck to train networks for, {got}" in error
    assert "leave out --network-steps" in error


def test_tables_that_cannot_be_coded_with_leave_the_prior_as_it_was(model: Path, photos: Path, capsys, monkeypatch):
    (model / PRIOR_FILE).write_bytes(b"mine")
    monkeypatch.setattr(fitting, "_encode_centres", lambda *_: iter([Sample(smooth_grid(8, 8, 16), 0, 0)]))
    command = ["fit-prior", "--model", str(model), "--images", str(photos), "--force", "--entropy-model"]
    assert main([*command, f"{__name__}:Unusable"]) == 2
    assert "the tables are upside down" in capsys.readouterr().err
    assert (model / PRIOR_FILE).read_bytes() == b"mine"


def test_wrong_usage_is_status_2():
    assert main(["fit-prior", "--model", "model"]) == 2
