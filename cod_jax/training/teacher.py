"""Teacher of a distillation, the diffusion model that a one-step codec learns from."""

from cod_jax.errors import UserError
from cod_jax.model_folder.abilities import check_teacher
from cod_jax.model_folder.bundle import load_bundle, load_description
from cod_jax.model_folder.included import model_path
from cod_jax.models import ModelConfig, build_model, unflatten_params
from cod_jax.models.functional import Params
from cod_jax.training.run_folder import errors_that_name, latest_step
from cod_jax.training.saved_models import load_for_export, load_meta


def load_teacher_config(path: str, guidance_scale: float = 1.0) -> ModelConfig:
    """Return the description of the model in a model folder, an included one, or a run folder.

    Args:
        path: The folder.
        guidance_scale: Guidance of the teacher; 1 is none.

    Raises:
        UserError: No folder is named, or it contains no model, or one that cannot be a teacher with this guidance.
    """
    if not path:
        raise UserError(
            "objective.teacher must name a pre-trained CoD or CoD-Lite on pixels, got nothing; give its model folder, "
            "or its run folder"
        )
    step = latest_step(path)
    if step is not None:
        settings = load_meta(path, step)["config"]
        config, facts = ModelConfig.from_dict(settings["model"]), {"config": settings}
    else:
        folder = model_path(path)
        with errors_that_name(f"objective.teacher {path}", folder):
            config, facts = load_description(folder)
    check_teacher(facts, guidance_scale, f"objective.teacher {path}")
    return config


def load_teacher(path: str) -> Params:
    """Return the teacher's parameters; from a run it takes the moving average.

    Raises:
        UserError: The folder contains no model.
    """
    if latest_step(path) is None:
        return load_bundle(model_path(path)).params
    config, flat, _ = load_for_export(path)
    return unflatten_params(flat, build_model(ModelConfig.from_dict(config)).shapes)
