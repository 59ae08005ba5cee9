import json
from pathlib import Path

import headers
import pytest
from headers import sd2, sd15, sdxl
from huggingface_hub import constants

from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.home import POCKET
from trainer.contract.settings.config import validated
from trainer.contract.wording import for_console
from trainer.models import lookup
from trainer.models.compatible import check, check_chosen
from trainer.models.errors import BaseModelMissing, NotABaseModel
from trainer.models.identify import identify
from trainer.models.lookup import located, models_here, name_of, resolved
from trainer.planning.ready import settled

HUB_NAME = "ana/small-model"


@pytest.fixture(autouse=True)
def forge(tmp_path, monkeypatch):
    """Where Forge keeps models, in a home folder of our own with nothing else in it."""
    person = tmp_path / "person"
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(person))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    program = person / "forge"
    for entry in ("models/Lora", "models/Stable-diffusion", "modules_forge"):
        (program / entry).mkdir(parents=True)
    (program / "webui.py").touch()
    lookup._models_of.cache_clear()
    yield program / "models" / "Stable-diffusion"
    lookup._models_of.cache_clear()


def in_hub_cache():
    """A model of the hub that is here; gives back its snapshot."""
    storage = Path(constants.HF_HUB_CACHE) / f"models--{HUB_NAME.replace('/', '--')}"
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / "main").write_text("c" * 40)
    snapshot = headers.folder(storage / "snapshots" / ("c" * 40), {})
    (snapshot / "tokenizer" / "tokenizer.json").write_text("{}")
    return snapshot


def config(base_model, **changes):
    """Settings for this base model; keyword arguments are sections to change."""
    return validated({**changes, "model": {"base_model": str(base_model), **changes.get("model", {})}})


def refusal(base_model, **changes):
    """The error that these settings bring, told with the model."""
    with pytest.raises(InvalidSettings) as caught:
        check_chosen(config(base_model, **changes))
    return caught.value


# where it lies


def test_the_pocket_model_and_models_of_the_hub_keep_their_names_and_lie_where_they_lie():
    assert (resolved("pocket"), located("pocket")) == ("pocket", POCKET)
    assert (resolved(HUB_NAME), located(HUB_NAME)) == (HUB_NAME, None)
    snapshot = in_hub_cache()
    assert (resolved(HUB_NAME), located(HUB_NAME)) == (HUB_NAME, snapshot)


def test_a_path_becomes_absolute_whether_or_not_something_lies_there(tmp_path, monkeypatch):
    headers.write(tmp_path / "ana.safetensors", sd15())
    monkeypatch.chdir(tmp_path)
    for typed in ("ana.safetensors", "./ana.safetensors", f"../{tmp_path.name}/ana.safetensors"):
        assert resolved(typed) == str(tmp_path / "ana.safetensors")
    assert resolved("./gone.safetensors") == str(tmp_path / "gone.safetensors")
    assert located(resolved("~/x.safetensors")) == Path.home() / "x.safetensors"


@pytest.mark.parametrize("typed", ["ponyDiffusionV6XL_v6", "ponydiffusionv6xl_v6.SAFETENSORS"])
def test_a_bare_name_is_looked_for_among_the_models_on_this_computer(forge, typed):
    file = headers.write(forge / "sorted" / "ponyDiffusionV6XL_v6.safetensors", sdxl())
    headers.write(forge / "ponyDiffusionV6XL.safetensors", sdxl())
    assert resolved(typed) == str(file)
    assert settled(config(typed, dataset={"images": "x"})).model.base_model == str(file)


def test_a_file_here_goes_before_one_of_that_name_elsewhere(forge, tmp_path, monkeypatch):
    headers.write(forge / "ana.safetensors", sdxl())
    headers.write(tmp_path / "ana.safetensors", sd15())
    monkeypatch.chdir(tmp_path)
    assert resolved("ana.safetensors") == str(tmp_path / "ana.safetensors")


def test_a_model_in_the_hubs_cache_is_called_by_its_repositorys_name():
    in_hub_cache()
    assert resolved("Small-Model") == HUB_NAME
    (one,) = (one for one in models_here() if one.name == HUB_NAME)
    assert name_of(one) == HUB_NAME


def test_of_several_models_of_a_name_the_user_chooses_one(forge):
    files = [headers.write(forge / folder / "ana.safetensors", sd15()) for folder in "ab"]
    with pytest.raises(InvalidSettings) as caught:
        resolved("ana")
    assert caught.value.message == f"2 models are called ana: {files[0]}, {files[1]}."
    assert set(caught.value.places) == {"model.base_model"}


def test_a_name_that_nothing_has_is_missing():
    with pytest.raises(BaseModelMissing, match=r"No base model at nobody\."):
        resolved("nobody")


@pytest.mark.parametrize("typed", ["x" * 5000, "~no-such-user-here", "~no-such-user-here/x"])
def test_what_cannot_be_a_path_is_told_as_an_error_of_ours(typed):
    with pytest.raises(TrainerError):
        check_chosen(config(typed))


def test_the_computer_is_looked_through_once_a_minute_at_most(forge, monkeypatch):
    now = 1200.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    assert models_here() == ()
    headers.write(forge / "ana.safetensors", sd15())
    now += lookup.FRESH_SECONDS - 1
    assert models_here() == ()
    now += 1
    assert [one.name for one in models_here()] == ["ana"]


# what it is


@pytest.mark.parametrize("wanted", ["auto", "sdxl"])
def test_settings_for_any_family_or_for_this_one_pass(tmp_path, wanted):
    file = headers.write(tmp_path / "ana.safetensors", sdxl())
    check_chosen(config(file, model={"family": wanted}, adapter={"text_encoder_2": True}))


def test_a_model_of_another_family_is_told_at_both_fields(tmp_path):
    file = headers.write(tmp_path / "pony.safetensors", sdxl())
    told = refusal(file, model={"family": "sd15"})
    assert told.message == "pony.safetensors is SDXL (Pony); these settings are made for SD 1.x."
    assert "--model.family sdxl" in for_console(told.hint)
    assert told.places == dict.fromkeys(("model.base_model", "model.family"), told.message)


def test_a_model_of_the_hub_is_called_by_its_name_not_by_its_commit():
    in_hub_cache()
    assert refusal(HUB_NAME, model={"family": "sdxl"}).message.startswith("small-model is SD 1.x;")


@pytest.mark.parametrize(
    ("tensors", "changes", "place"),
    [
        (sdxl(), {"model": {"clip_skip": 2}}, "model.clip_skip"),
        (sd2(), {"model": {"clip_skip": 2}, "objective": {"prediction": "epsilon"}}, "model.clip_skip"),
        (sdxl(), {"model": {"vae": "/nowhere/a vae.safetensors"}}, "model.vae"),
        (sd15(), {"adapter": {"text_encoder_2": True}}, "adapter.text_encoder_2"),
        (sd2(), {"adapter": {"text_encoder_2": True}}, "adapter.text_encoder_2"),
        (sd2(), {}, "objective.prediction"),
        (sdxl() | {"v_pred": (), "ztsnr": ()}, {"objective": {"noise_offset": 0.05}}, "objective.noise_offset"),
        (sdxl() | {"v_pred": (), "ztsnr": ()}, {"objective": {"prediction": "epsilon"}}, "objective.zero_terminal_snr"),
        (sdxl(), {"objective": {"zero_terminal_snr": "on"}}, "objective.zero_terminal_snr"),
    ],
)
def test_a_setting_that_the_model_rules_out_is_told_at_its_field(tmp_path, tensors, changes, place):
    told = refusal(headers.write(tmp_path / "ana.safetensors", tensors), **changes)
    assert told.places == {place: told.message}
    assert f"--{place} " in for_console(told.hint)


@pytest.mark.parametrize(
    ("tensors", "changes"),
    [
        (sd15(), {"model": {"clip_skip": 2}}),
        (sdxl(), {"model": {"clip_skip": 1}}),
        (sd2(), {"objective": {"prediction": "v_prediction", "zero_terminal_snr": "on"}}),
        (sdxl(), {"objective": {"noise_offset": 0.05}}),
        (sdxl() | {"v_pred": (), "ztsnr": ()}, {"objective": {"noise_offset": 0.05, "zero_terminal_snr": "off"}}),
    ],
)
def test_a_setting_that_the_model_leaves_open_passes(tmp_path, tensors, changes):
    check_chosen(config(headers.write(tmp_path / "ana.safetensors", tensors), **changes))


def test_the_velocity_model_that_says_so_needs_no_setting(tmp_path):
    file = headers.write(tmp_path / "ana.safetensors", sd2(), metadata={"modelspec.prediction_type": "v"})
    check(identify(file), config(file))


def test_a_model_of_the_hub_that_is_still_to_be_fetched_is_let_through():
    check_chosen(config(HUB_NAME, model={"family": "sdxl"}))


# before a run is made


def test_no_run_is_made_of_settings_that_the_model_rules_out(tmp_path):
    values = {"images": str(tmp_path)}
    file = headers.write(tmp_path / "ana.safetensors", sdxl())
    with pytest.raises(InvalidSettings, match="made for SD 2"):
        settled(config(file, model={"family": "sd2"}, dataset=values))
    with pytest.raises(BaseModelMissing, match=r"gone\.safetensors"):
        settled(config(tmp_path / "gone.safetensors", dataset=values))
    (tmp_path / "notes.safetensors").write_text(json.dumps({"not": "a model"}))
    with pytest.raises(NotABaseModel):
        settled(config(tmp_path / "notes.safetensors", dataset=values))


def test_the_own_vae_becomes_absolute_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    headers.write(tmp_path / "vae.safetensors", headers.vae(""))
    made = settled(config("pocket", model={"vae": "vae.safetensors"}, dataset={"images": "x"}))
    assert made.model.vae == str(tmp_path / "vae.safetensors")
