"""Every shipped preset, trained for two steps on a tiny model of its family in the layout that people download."""

import originals
import pytest
import tiny
import torch
from safetensors import safe_open

from trainer.__main__ import main
from trainer.contract.events import Lora, RunFinished, RunStarted, Step, Warned, read_events
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, list_presets, overlay
from trainer.engine import outputs
from trainer.models.identify import SD2_MARKER
from trainer.runs.folder import RunFolder

# 2026-11-22, diffusers 0.42: SDXL's scheduler hands NumPy 2.4 a tensor, whose __array__ has the older signature
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
PRESETS = {preset.name: preset for preset in list_presets(FOLDER)[0]}
STEPS = 2
# Family, and what published files of the kind are known by, for the first word of the presets' names
XL = ("sdxl", {})
MODELS = {
    "sd15": ("sd15", {}),
    "sd2": ("sd2", {SD2_MARKER: torch.linspace(-0.3, 0.3, originals.TINY[0]).half()}),
    "sdxl": XL,
    "pony": XL,
    "illustrious": XL,
    "noobai": ("sdxl", {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}),
}
PENULTIMATE = {"modelspec.encoder_layer": "2"}  # heeded in SD 1.x; the others read that layer anyway
VELOCITY = {"sd2", "noobai", "pocket"}


@pytest.fixture(scope="module")
def base_model(tmp_path_factory):
    """The base model for a kind of preset; each file is written once."""
    folder, made = tmp_path_factory.mktemp("original"), {}

    def make(kind):
        if kind == "pocket":
            return kind
        family, marks = MODELS[kind]
        path = folder / f"{family}{' marked' if marks else ''}.safetensors"
        if path not in made:
            made[path] = originals.write_file(path, family, extra=marks, metadata=PENULTIMATE)
        return str(path)

    return make


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of these settings, trained here and now; presets that differ in their base model alone share it."""
    home, runs = Home(tmp_path_factory.mktemp("home")), {}

    def train(config):
        if config not in runs:
            runs[config] = RunFolder.create(home, config)
            assert main([str(runs[config].path)]) == 0, runs[config].view().ended
        return runs[config]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "generate_strip", lambda *_: None)  # six images a run, which have tests of their own
        yield train


@pytest.fixture(scope="module")
def two_images(tmp_path_factory):
    return tiny.images(tmp_path_factory.mktemp("pictures"), count=2)


def small(preset, base_model, images):
    """The preset's settings, but for images and model, size and length, previews, and one pass to a step."""
    usual, _ = overlay({"preset": preset.values})
    batch = usual.dataset.batch_size * usual.dataset.accumulation
    length = {"views": 1, "min_total_views": STEPS * batch, "max_total_views": STEPS * batch}
    changes = {
        "preset": "",
        "model": {"base_model": base_model, "device": "cpu", "precision": "fp32"},
        "dataset": {"images": str(images), "resolution": 64, "batch_size": batch, "accumulation": 1, **length},
        "preview": {"prompts": ["ball"], "steps": 1, "every": 1000},
        "output": {"name": "dry run", "files": 1, "checkpoint_every": 1000},
    }
    return overlay({"preset": preset.values, "test": changes})[0]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_on_a_model_of_its_family_to_a_file(name, base_model, trained, two_images):
    kind = name.partition("-")[0]
    config = small(PRESETS[name], base_model(kind), two_images)
    run = trained(config)
    events, _, _ = read_events(run.events_file)
    assert [event.family for event in events if isinstance(event, RunStarted)] == [MODELS.get(kind, MODELS["sd15"])[0]]
    assert [event.code for event in events if isinstance(event, Warned)] == ["fits_only_its_model"]
    assert len([event for event in events if isinstance(event, Step)]) == STEPS
    assert [event.file for event in events if isinstance(event, Lora)] == ["dry run.safetensors"]
    assert [event.reason for event in events if isinstance(event, RunFinished)] == ["completed"]
    with safe_open(run.path / "dry run.safetensors", "pt") as file:
        layers, told = {key.split("_")[1] for key in file.keys()}, file.metadata()  # noqa: SIM118 - a file handle
    first = "te1" if config.model.family == "sdxl" else "te"
    assert layers == ({"unet", first} if config.adapter.text_encoder else {"unet"})
    assert (told["ss_network_dim"], told["ss_network_alpha"]) == (str(config.adapter.rank), str(config.adapter.alpha))
    assert told["modelspec.prediction_type"] == ("v" if kind in VELOCITY else "epsilon")
    assert told["ss_clip_skip"] == ("2" if kind == "sd15" else "None")
    assert told["ss_zero_terminal_snr"] == str(kind == "noobai")
