"""What is said about files and models."""

from pathlib import Path

from cod_jax import info
from cod_jax.model_folder.bundle import save_bundle
from tests.model_fixtures import tiny_bundle


def test_facts_of_the_training_do_not_replace_what_was_found(tmp_path: Path):
    bundle = tiny_bundle()
    facts = {"fingerprint": "ffff", "model": "other", "step": 12}
    fingerprint = save_bundle(tmp_path / "model", bundle.config, bundle.params, training=facts)
    found = info.describe_model(tmp_path / "model")
    assert (found["fingerprint"], found["training"]) == (fingerprint, facts)
    lines = info.model_lines(tmp_path / "model", found)
    titles = [title for title, _ in lines]
    assert len(titles) == len(set(titles))
    assert (dict(lines)["fingerprint"], dict(lines)["step"]) == (fingerprint, "12")
