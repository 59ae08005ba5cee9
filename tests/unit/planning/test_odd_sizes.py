"""Numbers that the engine cannot take are refused, or what it takes in their place is said before the start."""

import math

import pytest
from tiny import images

from app.desk.plan import found_in, model_problems, parts
from app.kit.form import shown_values
from app.kit.rows import SETTINGS
from trainer.console.main import main
from trainer.contract.errors import InvalidSettings
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.engine.previews import preview_options
from trainer.planning.ready import rounded, settled
from trainer.runs.folder import RunFolder


@pytest.mark.parametrize(
    ("place", "value"),
    [("preview.width", 500), ("preview.height", 1023), ("preview.width", 4), ("dataset.caption_tokens", 77)],
)
def test_what_must_be_a_multiple_is_told_on_the_console_and_at_its_field(tmp_path, capsys, place, value):
    section, name = place.split(".")
    with pytest.raises(InvalidSettings, match=f"{place} = {value}: must be a multiple of"):
        validated({section: {name: value}})
    flags = ["--preset", "pocket-style", "--home", str(tmp_path), f"--{place}", str(value), "--check"]
    assert main(flags) == 2
    assert "must be a multiple of" in capsys.readouterr().out
    assert place in model_problems({**shown_values(validated({})), place: value}, "pocket-style", "style", "en")
    assert place in SETTINGS


@pytest.mark.parametrize("resolution", [32, 33, 100, 500, 511, 512, 1000])
def test_previews_without_a_size_of_their_own_have_one_that_a_vae_decodes(resolution):
    options = preview_options(validated({"dataset": {"resolution": resolution}}), [0])
    assert options.width == options.height == resolution // 8 * 8
    wide = preview_options(validated({"dataset": {"resolution": resolution}, "preview": {"width": 96}}), [0])
    assert (wide.width, wide.height) == (96, resolution // 8 * 8)


def test_a_resolution_between_two_of_the_grid_is_said_with_what_it_becomes(tmp_path, capsys):
    folder = images(tmp_path / "pictures", 2)
    flags = ["--preset", "pocket-style", "--home", str(tmp_path), "--images", str(folder), "--check"]
    assert main([*flags, "--dataset.resolution", "100", "--dataset.further_resolutions", "70", "64"]) == 0
    said = capsys.readouterr().out
    assert "Resolution 100 px is trained at 96 px" in said
    assert "Resolution 70 px is trained at 64 px" in said
    assert main(flags) == 0
    assert "is trained at" not in capsys.readouterr().out
    config = validated({"dataset": {"images": str(folder), "resolution": 100}, "model": {"base_model": "pocket"}})
    assert "100 px is trained at 96 px" in " · ".join(parts(Home(tmp_path), config, found_in(config.dataset)[0], "en"))
    sd = validated({"model": {"family": "sd15", "base_model": "nobody/knows"}, "dataset": {"resolution": 500}})
    assert rounded(sd) == {500: 448}
    assert rounded(sd.model_copy(update={"dataset": validated({"dataset": {"resolution": 576}}).dataset})) == {}


def test_more_layers_are_not_skipped_than_a_text_encoder_has(tmp_path):
    folder = images(tmp_path / "pictures", 1)
    values = {"dataset": {"images": str(folder)}, "model": {"base_model": "pocket", "clip_skip": 3}}
    assert settled(validated(values)).model.clip_skip == 3
    values["model"]["clip_skip"] = 4
    with pytest.raises(InvalidSettings, match="text encoder of pocket has 3 layers") as refused:
        settled(validated(values))
    assert "model.clip_skip" in refused.value.places


@pytest.mark.parametrize("place", ["model.memory_limit", "dataset.cache_limit"])
def test_no_number_of_gib_overflows(place):
    section, name = place.split(".")
    with pytest.raises(InvalidSettings):
        validated({section: {name: 1e308}})
    assert math.isfinite(getattr(getattr(validated({section: {name: 1e6}}), section), name) * 2**30)


def test_a_run_of_an_earlier_version_is_still_read(tmp_path):
    run = RunFolder.create(Home(tmp_path), validated({}))
    text = run.config_file.read_text(encoding="utf-8")
    run.config_file.write_text(text.replace("width = 0", "width = 500"), encoding="utf-8")
    assert run.config().preview.width == 496
    run.config_file.write_text("preview = 3\n", encoding="utf-8")
    with pytest.raises(InvalidSettings):
        run.config()


@pytest.mark.parametrize(
    ("place", "path"),
    [("model.base_model", "https://civitai.com/models/101055"), ("model.vae", "smb://nas/vae.safetensors")],
)
def test_an_address_instead_of_a_path_is_said_at_its_field(place, path):
    values = {**shown_values(validated({})), place: path}
    assert "is an address" in model_problems(values, "", "style", "en")[place]


@pytest.mark.parametrize(
    ("section", "name", "value", "said"),
    [("dataset", "resolution", "512,512", "a whole number"), ("optimizer", "learning_rate", "1,5", "a number")],
)
def test_a_text_instead_of_a_number_is_refused_in_plain_words(section, name, value, said):
    with pytest.raises(InvalidSettings) as refused:
        validated({section: {name: value}})
    assert refused.value.places == {f"{section}.{name}": f"must be {said}."}
