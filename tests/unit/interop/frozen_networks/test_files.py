"""The message about a missing file."""

from functools import partial

import pytest

from cod_jax.interop import load_dinov2, load_dists, load_inception, load_lpips, load_sd_vae


@pytest.mark.parametrize(
    ("load", "name", "url"),
    [
        (load_dinov2, "dinov2_vitb14_pretrain.pth", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/"),
        (load_sd_vae, "diffusion_pytorch_model.safetensors", "https://huggingface.co/stabilityai/sd-vae-ft-ema"),
        (load_dists, "vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth"),
        (
            load_inception,
            "pt_inception-2015-12-05-6726825d.pth or weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/",
        ),
        (load_lpips, "vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth"),
        (partial(load_lpips, trunk="alex"), "alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/alexnet"),
    ],
)
def test_a_missing_file_is_one_message_with_name_source_and_place(tmp_path, load, name, url):
    with pytest.raises(FileNotFoundError) as error:
        load(tmp_path, otherwise="set the weight of this loss to 0")
    message = str(error.value)
    assert name in message
    assert url in message
    assert f"there is none in {tmp_path}" in message
    assert message.endswith("put it there, or set the weight of this loss to 0")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load(tmp_path / "nowhere")
