"""What a model was noised with, and that previews are drawn by the same rules."""

import diffusers
import pytest
import torch

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.learning import ObjectiveSettings
from trainer.engine.families.noise import noise_spec, preview_scheduler
from trainer.engine.objectives import make_schedule

NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
KINDS = ["PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"]
V = {"prediction_type": "v_prediction"}
ZERO = {**V, "rescale_betas_zero_snr": True}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", [{}, V, ZERO], ids=["noise", "velocity", "velocity to zero"])
def test_loss_and_previews_agree_on_prediction_and_noise_at_every_timestep(kind, told):
    noise = noise_spec({**NOISE, **told}, ObjectiveSettings())
    drawn, trained = preview_scheduler({**NOISE, "_class_name": kind}, noise), make_schedule(noise, ObjectiveSettings())
    assert drawn.config.prediction_type == trained.prediction
    assert (trained.alphas_cumprod[-1] == 0) == noise.zero_terminal_snr == ("rescale_betas_zero_snr" in told)
    # Euler keeps 2^-24 where there is nothing left, so that it can divide by it
    torch.testing.assert_close(trained.alphas_cumprod, drawn.alphas_cumprod.float(), rtol=2e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' DPM-Solver makes arrays of tensors
@pytest.mark.parametrize("kind", KINDS)
def test_with_zero_terminal_snr_a_preview_begins_at_pure_noise(kind):
    scheduler = preview_scheduler({**NOISE, "_class_name": kind}, noise_spec({**NOISE, **ZERO}, ObjectiveSettings()))
    scheduler.set_timesteps(10)
    assert int(scheduler.timesteps[0]) == 999


def test_the_users_word_goes_before_the_models():
    wished = ObjectiveSettings(prediction="v_prediction", zero_terminal_snr="on")
    noise = noise_spec(NOISE, wished)
    assert (noise.prediction, noise.zero_terminal_snr) == ("v_prediction", True)
    scheduler = preview_scheduler({**NOISE, "_class_name": "EulerDiscreteScheduler"}, noise)
    assert isinstance(scheduler, diffusers.EulerDiscreteScheduler)
    assert scheduler.config.prediction_type == "v_prediction"


def test_a_model_that_says_nothing_keeps_its_own_schedulers_settings():
    own = {**NOISE, "_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "linspace", "solver_order": 3}
    scheduler = preview_scheduler(own, noise_spec(own, ObjectiveSettings()))
    assert {name: scheduler.config[name] for name in own if name != "_class_name"} == {
        name: value for name, value in own.items() if name != "_class_name"
    }


@pytest.mark.parametrize(
    ("told", "settings", "named"),
    [
        ({}, {"zero_terminal_snr": "on"}, "epsilon"),
        (ZERO, {"noise_offset": 0.1}, "noise_offset"),
        (ZERO, {"prediction": "epsilon"}, "epsilon"),
    ],
)
def test_impossible_combinations_found_with_the_model_are_refused(told, settings, named):
    with pytest.raises(InvalidSettings, match=named):
        noise_spec({**NOISE, **told}, ObjectiveSettings(**settings))


def test_a_scheduler_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="NoSuchScheduler"):
        preview_scheduler({**NOISE, "_class_name": "NoSuchScheduler"}, noise_spec(NOISE, ObjectiveSettings()))
