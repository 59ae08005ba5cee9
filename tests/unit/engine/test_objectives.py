from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.learning import ObjectiveSettings
from trainer.engine.families.base import Conditioning, NoiseSpec
from trainer.engine.objectives import (
    Batch,
    betas,
    make_schedule,
    masked_error,
    min_snr_weight,
    sample_noise,
    sample_rng,
    sample_timesteps,
    training_loss,
    zero_terminal,
)

SD15 = NoiseSpec(1000, 0.00085, 0.012, "scaled_linear", "epsilon", zero_terminal_snr=False)
SD15_V = NoiseSpec(1000, 0.00085, 0.012, "scaled_linear", "v_prediction", zero_terminal_snr=False)
SHAPE = (3, 4, 8, 8)
CAPTIONED = torch.zeros(3, dtype=torch.bool)


def diffusers_scheduler(**changes):
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, **changes}
    return DDPMScheduler(num_train_timesteps=1000, **settings)


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    return latents, noise, torch.tensor([0, 500, 999])


@pytest.mark.parametrize("schedule", ["scaled_linear", "linear"])
def test_the_noise_schedule_is_the_one_diffusers_computes(schedule):
    spec = NoiseSpec(1000, 0.00085, 0.012, schedule, "epsilon", zero_terminal_snr=False)
    ours = make_schedule(spec, ObjectiveSettings()).alphas_cumprod
    theirs = diffusers_scheduler(beta_schedule=schedule).alphas_cumprod
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_zero_terminal_snr_is_the_rescaling_diffusers_computes():
    ours = zero_terminal(torch.cumprod(1 - betas(SD15_V), 0)).float()
    theirs = diffusers_scheduler(rescale_betas_zero_snr=True).alphas_cumprod
    torch.testing.assert_close(ours[:-1], theirs[:-1], rtol=1e-3, atol=1e-6)
    assert ours[-1] == 0


def test_noisy_latents_and_velocity_are_those_of_diffusers(tensors):
    schedule, theirs = make_schedule(SD15_V, ObjectiveSettings()), diffusers_scheduler()
    torch.testing.assert_close(schedule.add_noise(*tensors), theirs.add_noise(*tensors), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(schedule.target(*tensors), theirs.get_velocity(*tensors), rtol=1e-4, atol=1e-4)


def test_the_epsilon_target_is_the_noise_itself(tensors):
    assert make_schedule(SD15, ObjectiveSettings()).target(*tensors) is tensors[1]


@pytest.mark.parametrize(("prediction", "expected"), [("epsilon", [1.0, 5 / 20]), ("v_prediction", [0.5, 5 / 21])])
def test_min_snr_caps_the_weight_and_has_its_own_divisor_for_v(prediction, expected):
    weights = min_snr_weight(torch.tensor([1.0, 20.0]), 5.0, prediction)
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_min_snr_weights_the_same_error_in_the_image_alike_for_epsilon_and_v():
    # An error d in x0 is an error d·sqrt(snr) in epsilon and d·sqrt(snr + 1) in v (Hang et al. 2023, section 3.4).
    snr = torch.tensor([0.1, 1.0, 30.0])
    epsilon = min_snr_weight(snr, 5.0, "epsilon") * snr
    torch.testing.assert_close(epsilon, min_snr_weight(snr, 5.0, "v_prediction") * (snr + 1))


def test_gamma_zero_weights_every_timestep_alike():
    schedule = make_schedule(SD15, ObjectiveSettings(min_snr_gamma=0))
    assert schedule.weight(torch.tensor([0, 999])).tolist() == [1, 1]


def test_a_models_own_zero_terminal_snr_is_followed_and_pure_noise_at_the_end(tensors):
    spec = NoiseSpec(1000, 0.00085, 0.012, "scaled_linear", "v_prediction", zero_terminal_snr=True)
    schedule = make_schedule(spec, ObjectiveSettings())
    latents, noise, t = tensors
    noisy = schedule.add_noise(latents, noise, t)
    torch.testing.assert_close(noisy[2], noise[2])
    assert torch.isfinite(schedule.weight(t)).all()


def test_a_noise_schedule_that_stable_diffusion_does_not_use_is_refused():
    with pytest.raises(InvalidSettings):
        make_schedule(NoiseSpec(1000, 1e-3, 1e-2, "squaredcos_cap_v2", "epsilon", False), ObjectiveSettings())


def test_draws_of_a_sample_do_not_depend_on_the_batch_around_it():
    together = sample_noise(SHAPE, [sample_rng(7, 3, index) for index in range(3)])
    alone = sample_noise((1, *SHAPE[1:]), [sample_rng(7, 3, 2)])
    assert torch.equal(together[2], alone[0])


def test_different_seeds_steps_and_samples_draw_differently():
    drawn = {
        float(sample_noise((1, 1, 1, 1), [sample_rng(seed, step, index)]))
        for seed in range(3)
        for step in range(3)
        for index in range(3)
    }
    assert len(drawn) == 27


def test_timesteps_cover_the_whole_schedule_evenly():
    t = sample_timesteps(range(1000), [sample_rng(0, step, 0) for step in range(4000)])
    assert t.min() < 10
    assert t.max() > 989
    assert abs(t.float().mean() - 499.5) < 15  # three standard errors


def test_timesteps_stay_within_those_wished():
    schedule = make_schedule(SD15, ObjectiveSettings(min_timestep=200, max_timestep=600))
    t = sample_timesteps(schedule.timesteps, [sample_rng(0, step, 0) for step in range(4000)])
    assert (int(t.min()), int(t.max())) == (200, 599)


def unasked(*_):
    raise AssertionError("the base model is asked though nothing is to be kept")


@pytest.mark.parametrize(("keep_from", "keep_uncaptioned"), [(500, False), (1000, True), (700, True)])
def test_where_the_base_is_kept_its_own_prediction_is_the_target_with_full_weight(keep_from, keep_uncaptioned):
    wished = ObjectiveSettings(min_snr_gamma=5.0, keep_from_timestep=keep_from, keep_uncaptioned=keep_uncaptioned)
    schedule = make_schedule(SD15_V, wished)
    count, told = 40, []
    mean = torch.randn((count, *SHAPE[1:]), generator=torch.Generator().manual_seed(1))
    uncaptioned = torch.arange(count) % 4 == 0
    text = Conditioning(torch.arange(count).float().view(-1, 1, 1))
    batch = Batch(mean, torch.zeros_like(mean), text, uncaptioned)
    asked = []

    def denoiser(noisy, t, _conditioning):
        told.append(t)
        return noisy * 0 + 7

    def base(noisy, t, conditioning):
        asked.append((t, conditioning.states.flatten().long()))
        return noisy * 0 + 5

    losses = training_loss(denoiser, base, batch, schedule, [sample_rng(0, 0, index) for index in range(count)])
    kept = (told[0] >= keep_from) | (uncaptioned & keep_uncaptioned)
    assert 0 < kept.sum() < count
    assert torch.equal(asked[0][0], told[0][kept])
    assert torch.equal(asked[0][1], kept.nonzero().flatten())  # each with its own caption
    assert torch.equal(losses[kept], torch.full((int(kept.sum()),), 4.0))
    assert not (losses[~kept] == 4.0).any()


def test_the_loss_is_zero_for_a_denoiser_that_knows_the_answer_and_the_weighted_error_otherwise():
    spec = SD15_V
    schedule = make_schedule(spec, ObjectiveSettings(min_snr_gamma=5.0))
    mean = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    batch = Batch(mean, torch.zeros(SHAPE), Conditioning(torch.zeros(3, 7, 5)), CAPTIONED)

    def rng():
        return [sample_rng(1, 2, index) for index in range(3)]

    def knowing(noisy, t, _conditioning):
        signal, sigma = schedule.levels(t)
        return schedule.target(mean, (noisy - signal * mean) / sigma, t)

    assert training_loss(knowing, unasked, batch, schedule, rng()).max() < 1e-5

    def off_by_one(noisy, t, conditioning):
        return knowing(noisy, t, conditioning) + 1

    t = []
    seeing = lambda n, when, c: (t.append(when), off_by_one(n, when, c))[1]  # noqa: E731
    losses = training_loss(seeing, unasked, batch, schedule, rng())
    torch.testing.assert_close(losses, schedule.weight(t[0]), rtol=1e-3, atol=1e-4)


def test_noise_offset_shifts_whole_channels():
    schedule = make_schedule(SD15, ObjectiveSettings(noise_offset=1.0))
    flat = torch.zeros(1, 4, 64, 64)
    batch = Batch(flat, flat, Conditioning(torch.zeros(1, 1, 1)), CAPTIONED[:1])
    seen = []
    denoiser = lambda noisy, t, _: seen.append((noisy, t)) or noisy  # noqa: E731
    training_loss(denoiser, unasked, batch, schedule, [sample_rng(0, 0, 0)])
    noisy, t = seen[0]
    channel_means = (noisy / schedule.levels(t)[1]).mean(dim=(2, 3))
    assert channel_means.abs().max() > 0.3  # without an offset the mean of 4096 draws is within 0.06


def masked_losses(mask, keep, drawn=None, asked=None):
    """Losses of a denoiser whose error grows from left to right, and whose base model answers 0."""
    schedule = make_schedule(SD15, ObjectiveSettings(min_snr_gamma=0, mask_keep=keep))
    ramp = torch.arange(8.0).expand(SHAPE)
    batch = Batch(torch.zeros(SHAPE), torch.zeros(SHAPE), Conditioning(torch.zeros(3, 7, 5)), CAPTIONED, drawn, mask)
    knowing = lambda noisy, t, _c: noisy / schedule.levels(t)[1] + ramp  # noqa: E731

    def base(noisy, *_):
        if asked is not None:
            asked.append(len(noisy))
        return noisy * 0

    return training_loss(knowing, base, batch, schedule, [sample_rng(1, 2, i) for i in range(3)])


@pytest.mark.parametrize("keep", [0.0, 1.0])
@pytest.mark.parametrize("emptied", [[0], [0, 1, 2]])
def test_a_mask_that_shows_nothing_makes_neither_a_loss_nor_a_gradient_that_is_no_number(keep, emptied):
    mask = torch.ones(3, 1, 8, 8)
    mask[emptied] = 0
    schedule = make_schedule(SD15, ObjectiveSettings(mask_keep=keep))
    batch = Batch(torch.zeros(SHAPE), torch.zeros(SHAPE), Conditioning(torch.zeros(3, 7, 5)), CAPTIONED, None, mask)
    trained = torch.ones(1, requires_grad=True)
    rng = [sample_rng(1, 2, i) for i in range(3)]
    losses = training_loss(lambda noisy, *_: noisy * trained, lambda noisy, *_: noisy, batch, schedule, rng)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert losses[emptied].abs().max() == 0, "it has not moved from the base model"
    assert trained.grad.isfinite().all()
    assert bool(trained.grad != 0) == (len(emptied) < 3)


@pytest.mark.parametrize(("start", "end"), [(0.1, 1.2), (float("nan"), 0.02), (-0.5, 0.02)])
def test_a_noise_schedule_that_ends_in_no_numbers_is_refused(start, end):
    with pytest.raises(InvalidSettings, match="noise schedule"):
        make_schedule(replace(SD15, beta_start=start, beta_end=end), ObjectiveSettings())


def half_mask():
    mask = torch.zeros(3, 1, 8, 8)
    mask[..., :4] = 1
    return mask


def test_a_mask_that_shows_all_changes_no_bit_of_the_loss():
    assert torch.equal(masked_losses(torch.ones(3, 1, 8, 8), 0.3), masked_losses(None, 0.3))


def test_under_a_mask_the_loss_is_the_mean_error_of_what_it_shows_and_what_the_rest_moved_by_its_weight():
    inside = torch.tensor([0.0, 1, 2, 3]).square().mean()
    torch.testing.assert_close(masked_losses(half_mask(), 0.0), inside.expand(3), rtol=1e-3, atol=1e-3)
    error, moved = torch.rand(2, 3, 4, 8, 8)
    expected = error[..., :4].mean((1, 2, 3)) + 0.25 * moved[..., 4:].mean((1, 2, 3)) / 2
    torch.testing.assert_close(masked_error(error, moved, half_mask(), 0.25).mean((1, 2, 3)), expected)


def test_what_a_mask_leaves_out_is_never_learnt():
    error, moved = torch.rand(2, 3, 4, 8, 8)
    other = error.clone()
    other[..., 4:] += 7
    for keep in (0.0, 0.1, 1.0):
        made = masked_error(error, moved, half_mask(), keep)
        assert torch.equal(made, masked_error(other, moved, half_mask(), keep))


def test_the_base_model_is_asked_only_for_images_that_leave_something_out():
    some = half_mask()
    some[1] = 1
    for mask, keep, expected in ((some, 0.1, [2]), (some, 0.0, []), (torch.ones(3, 1, 8, 8), 0.1, []), (None, 1.0, [])):
        asked = []
        masked_losses(mask, keep, asked=asked)
        assert asked == expected


@pytest.mark.parametrize("white", [1, 7, 32])
def test_a_small_mask_weighs_as_much_as_a_large_one(white):
    mask = torch.zeros(1, 1, 8, 8)
    mask.view(-1)[:white] = 1
    same = torch.full((1, 4, 8, 8), 2.0)
    for keep in (0.0, 1.0):
        assert float(masked_error(same, same * 0, mask, keep).mean()) == pytest.approx(2.0)


def test_of_a_mask_that_shows_nothing_nothing_is_learnt():
    assert masked_losses(torch.zeros(3, 1, 8, 8), 0.0).tolist() == [0, 0, 0]


def test_the_bases_own_images_are_kept_whole_at_its_own_prediction():
    drawn = torch.tensor([True, False, False])
    without, masked = masked_losses(None, 0.0, drawn), masked_losses(half_mask(), 0.0, drawn)
    assert torch.equal(without[0], masked[0])
    assert not torch.equal(without[1], masked[1])
    assert not torch.equal(without[0], masked_losses(None, 0.0)[0])
