"""Base models as people have them, damaged or odd: each loads as it is, or is refused in a sentence of ours."""

import json
import re
import shutil

import originals
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from trainer.contract.errors import TrainerError
from trainer.contract.home import CHECKOUT
from trainer.engine.families.parts import clip_tokenizer
from trainer.models.identify import identify

LIBRARIES = re.compile(r"state_dict|size mismatch|KeyError|Traceback|report|from_pretrained|HeaderTooLarge|<class|\n")
PARTS = {"sd15": ("unet", "vae", "text_encoder"), "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2")}
IN_A_FILE = {
    "sd15": {"UNet": "model.diffusion_model.", "VAE": "first_stage_model.", "text encoder": "cond_stage_model."},
    "sd2": {"UNet": "model.diffusion_model.", "VAE": "first_stage_model.", "text encoder": "cond_stage_model.model."},
    "sdxl": {
        "UNet": "model.diffusion_model.",
        "VAE": "first_stage_model.",
        "text encoder": "conditioner.embedders.0.",
        "second text encoder": "conditioner.embedders.1.model.",
    },
}
LATE = ("another shape", "not a number")  # seen when the weights are read, before anything is encoded with them
tried = []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Models without a fault, by family and layout."""
    known = {}

    def model(family, layout):
        if (family, layout) not in known:
            path = tmp_path_factory.mktemp("whole") / ("model" if layout == "folder" else "model.safetensors")
            write = originals.write_folder if layout == "folder" else originals.write_file
            tokenizers = {"tokenizer": clip_tokenizer("<|endoftext|>"), "tokenizer_2": clip_tokenizer("!")}
            words = {name: one for name, one in tokenizers.items() if family == "sdxl" or name == "tokenizer"}
            known[family, layout] = write(path, family, **({"tokenizers": words} if layout == "folder" else {}))
        return known[family, layout]

    return model


@pytest.fixture
def model(whole, tmp_path):
    """A copy of a model, to be spoilt."""

    def copy(family, layout):
        source, target = whole(family, layout), tmp_path / whole(family, layout).name
        return shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)

    return copy


def changed(file, change):
    """The file with its tensors changed."""
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def victim(tensors, prefix=""):
    """A matrix somewhere in the middle of a part, of those that every model needs."""
    names = sorted(n for n, t in tensors.items() if n.startswith(prefix) and t.ndim > 1 and "position_ids" not in n)
    names = [name for name in names if ".23." not in name and not name.endswith("text_projection")]
    return names[len(names) // 2]


def lacks(tensors, prefix=""):
    del tensors[victim(tensors, prefix)]


def another_shape(tensors, prefix=""):
    name = victim(tensors, prefix)
    tensors[name] = torch.cat([tensors[name]] * 2)


def not_a_number(tensors, prefix=""):
    tensors[victim(tensors, prefix)].view(-1)[-1] = float("nan")


def fp8(tensors, prefix=""):
    for name in tensors:
        if name.startswith(prefix) and tensors[name].is_floating_point():
            tensors[name] = tensors[name].to(torch.float8_e4m3fn)


TENSORS = {"a tensor missing": lacks, "another shape": another_shape, "not a number": not_a_number, "fp8": fp8}


def half(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


FILES = {
    "half a file": half,
    "no file": lambda file: file.unlink(),
    "a web page": lambda file: file.write_text("<!doctype html>"),
    "empty": lambda file: file.write_bytes(b""),
}


def load(path, **model):
    """The model as a training loads it, with its UNet."""
    family = tiny.load(path, model=model, objective={"prediction": "v_prediction"})
    family.component("unet")
    return family


def refused(path, *words, late=False, **model):
    """Inspection and loading refuse it, or the latter alone if it is seen late, in a sentence with these words."""
    tried.append(path)
    for act in (lambda: load(path, **model), *(() if late else (lambda: identify(path, "vae" not in model),))):
        with pytest.raises(TrainerError) as error:
            act()
        said = f"{error.value.message} {error.value.hint}"
        assert not LIBRARIES.search(said), said
        assert all(word in said for word in words), said


def spoil_part(path, part, what):
    """A folder's part with this fault."""
    (file,) = (path / part).glob("*.safetensors")
    if what in FILES:
        FILES[what](file)
    else:
        changed(file, TENSORS[what])


@pytest.mark.parametrize("what", [*FILES, *TENSORS])
@pytest.mark.parametrize(("family", "part"), [(family, part) for family, parts in PARTS.items() for part in parts])
def test_a_folder_with_a_broken_part_is_refused_and_the_part_named(model, family, part, what):
    path = model(family, "folder")
    spoil_part(path, part, what)
    told = {"not a number": "not numbers", "fp8": "fp8", "another shape": ""}.get(what, part)
    refused(path, told, *(["model.vae"] if part == "vae" and what not in TENSORS else []), late=what in LATE)


@pytest.mark.parametrize("what", TENSORS)
@pytest.mark.parametrize(("family", "part"), [(family, part) for family, parts in IN_A_FILE.items() for part in parts])
def test_a_file_with_a_broken_part_is_refused_and_the_part_named(model, family, part, what):
    path = model(family, "file")
    changed(path, lambda tensors: TENSORS[what](tensors, IN_A_FILE[family][part]))
    named = {"fp8": "fp8", LATE[1]: "not numbers", LATE[0]: "shape"}.get(what, part)
    refused(path, named, late=what in LATE)


def in_two(part):
    """Split a part's weights into two shards with an index."""
    (file,) = part.glob("*.safetensors")
    tensors, stem = load_file(file), file.name.removesuffix(".safetensors")
    names = sorted(tensors)
    shards = {f"{stem}-0000{n + 1}-of-00002.safetensors": names[n::2] for n in (0, 1)}
    for shard, those in shards.items():
        save_file({name: tensors[name] for name in those}, part / shard, {"format": "pt"})
    index = {name: shard for shard, those in shards.items() for name in those}
    (part / f"{file.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    file.unlink()
    return [part / shard for shard in shards]


@pytest.mark.parametrize("part", PARTS["sd15"])
def test_shards_are_read_and_a_missing_one_is_named(model, part):
    path = model("sd15", "folder")
    before = load(path).component("text_encoder" if part == "vae" else part).state_dict()
    _, second = in_two(path / part)
    after = load(path).component("text_encoder" if part == "vae" else part).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    second.unlink()
    refused(path, part, second.name)


def test_an_index_that_is_damaged_is_named(model):
    path = model("sd15", "folder")
    in_two(path / "unet")
    next((path / "unet").glob("*.index.json")).write_text("{")
    refused(path, "unet", "index.json")


@pytest.mark.parametrize("gone", [["vocab.json"], ["merges.txt"], ["vocab.json", "merges.txt", "tokenizer.json"]])
def test_without_a_vocabulary_clip_s_own_is_used(model, gone):
    path = model("sd15", "folder")
    before = tiny.load(path).tokenize(["a red fox, <|endoftext|> 東京"])
    for name in gone:
        (path / "tokenizer" / name).unlink(missing_ok=True)
    tried.append(path)
    assert torch.equal(tiny.load(path).tokenize(["a red fox, <|endoftext|> 東京"]), before)


def test_another_text_encoder_s_vocabulary_cannot_be_replaced(tmp_path):
    path = shutil.copytree(CHECKOUT / "assets" / "pocket", tmp_path / "pocket", ignore=shutil.ignore_patterns("build"))
    (path / "tokenizer" / "tokenizer.json").unlink()
    refused(path, "tokenizer", "vocabulary")


@pytest.mark.parametrize("name", ["SDXL-Rectified-Flow", "animeRF_rf", "sd15_flow-matching", "bigasp flow"])
@pytest.mark.parametrize("layout", ["file", "folder"])
def test_a_model_of_flow_by_its_name_is_refused(model, layout, name):
    path = model("sd15", layout)
    refused(path.rename(path.with_name(name + path.suffix)), "flow")


def test_a_name_alone_is_said_to_be_the_reason_with_the_way_out(model):
    path = model("sd15", "file")
    refused(path.rename(path.with_name("my rf mix.safetensors")), "its name says", '"rf"', "rename it")


@pytest.mark.parametrize("name", ["overflow", "flower", "surf", "RFK portraits", "workflows", "Dreamflower v2"])
def test_words_that_only_look_like_it_are_no_flow(model, name):
    path = model("sd15", "file")
    assert identify(path.rename(path.with_name(f"{name}.safetensors"))).family == "sd15"


def test_a_model_of_flow_by_its_metadata_is_refused(model, tmp_path):
    tensors = load_file(model("sdxl", "file"))
    save_file(tensors, tmp_path / "a.safetensors", {"modelspec.prediction_type": "flow"})
    refused(tmp_path / "a.safetensors", "flow")


@pytest.mark.parametrize(
    "kind", [{"_class_name": "FlowMatchEulerDiscreteScheduler"}, {"prediction_type": "flow_prediction"}]
)
def test_a_model_of_flow_by_its_scheduler_is_refused(model, kind):
    path = model("sdxl", "folder")
    file = path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | kind))
    refused(path, "schedule")


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_second_vae_stands_in_for_one_that_is_missing_or_broken(model, family, tmp_path):
    path = model(family, "file")
    tensors = load_file(path)
    own = {name.removeprefix("first_stage_model."): one for name, one in tensors.items() if "first_stage" in name}
    other = tmp_path / "vae.safetensors"
    save_file(own, other)
    for broken in (lambda _: False, lambda name: "decoder" in name):
        save_file({n: t for n, t in tensors.items() if "first_stage" not in n or broken(n)}, path)
        refused(path, "VAE", "model.vae")
        tried.append(path)
        assert load(path, vae=str(other)).vae.config.latent_channels == 4
    half(other)
    refused(path, str(other), late=True, vae=str(other))


def test_a_folder_without_a_vae_takes_another_too(model, tmp_path):
    path = model("sd15", "folder")
    other = (path / "vae").rename(tmp_path / "another vae")
    refused(path, "vae", "model.vae")
    tried.append(path)
    assert load(path, vae=str(other)).vae.config.latent_channels == 4


def test_a_second_text_encoder_by_transformers_names_is_the_same_one(model, tmp_path):
    path, parts = model("sdxl", "file"), originals.parts("sdxl", tiny=True, dtype=torch.float16)
    prefix = "conditioner.embedders.1."
    tensors = {name: one for name, one in load_file(path).items() if not name.startswith(prefix)}
    tensors |= {f"{prefix}transformer.{name}": one for name, one in parts["text_encoder_2"].state_dict().items()}
    odd = tmp_path / "odd.safetensors"
    save_file(tensors, odd)
    tried.append(odd)
    ours, theirs = (load(one).component("text_encoder_2").state_dict() for one in (path, odd))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_corpus_is_large():
    assert len(tried) >= 60
