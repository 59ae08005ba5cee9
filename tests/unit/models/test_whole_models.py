"""Base models as people have them, damaged or odd: each loads as it is, or is refused in a sentence of ours."""

import json
import os
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
from trainer.engine.families.read_ahead import ReadAhead
from trainer.models.blueprint import LATER_NAMES
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


def ready_to_encode(path, **model):
    """The model as it is before a training encodes its first image."""
    family = tiny.load(path, model=model, objective={"prediction": "v_prediction"})
    with ReadAhead(family.unet_files) as ahead:
        ahead.finish()


def weights_of(family, part):
    """A part's weights, as they were loaded."""
    return (family.vae if part == "vae" else family.component(part)).state_dict()


def refused(path, *words, late=False, **model):
    """Inspection and loading refuse it, or the latter alone if it is seen late, in a sentence with these words."""
    tried.append(path)
    acts = [lambda: ready_to_encode(path, **model), lambda: identify(path, "vae" not in model)]
    for act in acts[:1] if late else acts:
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
    another = part == "vae" and what not in ("another shape", "fp8")
    refused(path, told, *(["model.vae"] if another else []), late=what in LATE)


@pytest.mark.parametrize("what", TENSORS)
@pytest.mark.parametrize(("family", "part"), [(family, part) for family, parts in IN_A_FILE.items() for part in parts])
def test_a_file_with_a_broken_part_is_refused_and_the_part_named(model, family, part, what):
    path = model(family, "file")
    changed(path, lambda tensors: TENSORS[what](tensors, IN_A_FILE[family][part]))
    named = {"fp8": "fp8", LATE[1]: "not numbers", LATE[0]: "shape"}.get(what, part)
    refused(path, named, *(["model.vae"] if part == "VAE" and what == LATE[1] else []), late=what in LATE)


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


@pytest.mark.parametrize(
    "name",
    ["SDXL-Rectified-Flow", "animeRF_rf", "sd15_flow-matching", "bigasp flow", "noobRF_v1", "InstaFlow", "RectFlow-xl"],
)
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


@pytest.mark.parametrize("part", PARTS["sd15"])
def test_shards_are_read_whatever_their_index_says_of_each_tensor(model, part):
    path = model("sd15", "folder")
    before = weights_of(load(path), part)
    first, second = in_two(path / part)
    index = next((path / part).glob("*.index.json"))
    index.write_text(json.dumps({"weight_map": {"a": first.name, "b": second.name}}))
    tried.append(path)
    for spoil in (lambda: None, index.unlink):
        spoil()
        after = weights_of(load(path), part)
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("part", PARTS["sd15"])
def test_a_tensor_in_two_shards_is_named(model, part):
    path = model("sd15", "folder")
    first, second = in_two(path / part)
    name = min(load_file(first))
    changed(second, lambda tensors: tensors.update({name: load_file(first)[name] + 1}))
    refused(path, part, name, "twice")


@pytest.mark.parametrize("part", PARTS["sd15"])
def test_files_beside_a_part_s_own_are_not_read(model, part):
    path = model("sd15", "folder")
    (file,) = (path / part).glob("*.safetensors")
    own = {name.removeprefix("text_model."): tensor for name, tensor in load_file(file).items()}
    whole = file.read_bytes()
    in_two(path / part)[0].unlink()  # what is left of an earlier download, with its index
    file.write_bytes(whole)
    save_file({name: tensor * 0 for name, tensor in own.items()}, file.with_name("zz_model.safetensors"))
    tried.append(path)
    read = {name.removeprefix("text_model."): tensor for name, tensor in weights_of(load(path), part).items()}
    assert all(torch.equal(read[name], own[name.removeprefix("text_model.")].float()) for name in read)


@pytest.mark.parametrize("part", PARTS["sd15"])
@pytest.mark.parametrize("kind", [torch.float8_e5m2, torch.int8, torch.int32])
def test_one_rounded_layer_is_one_too_many(model, part, kind):
    path = model("sd15", "folder")
    (file,) = (path / part).glob("*.safetensors")
    changed(file, lambda tensors: tensors.update({victim(tensors): tensors[victim(tensors)].to(kind)}))
    refused(path, "too coarse")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["unet/{}.safetensors.index.json", "tokenizer/vocab.json", "unet/{}.safetensors"])
def test_a_pipe_is_not_waited_for(model, name):
    path = model("sd15", "folder")
    pipe = path / name.format("diffusion_pytorch_model")
    if "index" in name:
        in_two(path / "unet")
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    if "unet" in name:
        refused(path, "unet")
    else:
        assert load(path).tokenize(["fox"]).max() < 49_408


def test_a_link_that_leads_nowhere_is_told_of_its_part(model):
    path = model("sd15", "folder")
    (file,) = (path / "unet").glob("*.safetensors")
    file.unlink()
    file.symlink_to("nowhere")
    refused(path, "its unet's", "missing")


@pytest.mark.parametrize("as_file", [False, True])
def test_a_vae_by_the_names_of_earlier_versions_is_the_same_one(model, as_file):
    path = model("sd15", "folder")
    before = load(path).vae.state_dict()
    (file,) = (path / "vae").glob("*.safetensors")
    renamed = {}
    for name, tensor in load_file(file).items():
        for later, earlier in LATER_NAMES.items():
            name = name.replace(f".{later}.", f".{earlier}.")
        renamed[name] = tensor
    save_file(renamed, file)
    tried.append(path)
    after = (load(path, vae=str(file)) if as_file else load(path)).vae.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


HOSTILE = {
    "unet": ("block_out_channels", "norm_num_groups", "cross_attention_dim", "attention_head_dim"),
    "vae": ("block_out_channels", "norm_num_groups"),
    "text_encoder": ("hidden_size", "num_attention_heads"),
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("value", [[], {}, "x", -1, 0, [["a"]]])
@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in HOSTILE.items() for name in names])
def test_a_configuration_of_no_model_is_told_of_its_part(model, part, name, value):
    path = model("sd15", "folder")
    file = path / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    try:
        load(path)  # some values are none of the library's concern
    except TrainerError:
        refused(path, late=True)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"tokenizer_config.json": {"pad_token": 5, "model_max_length": "x"}},
        {"tokenizer_config.json": {"model_max_length": 10**30}},
        {"tokenizer_config.json": []},
        {"tokenizer_config.json": {"bos_token": "A NEW ONE", "eos_token": "ANOTHER", "pad_token": "A THIRD"}},
        {"vocab.json": {"a": 0, "b": 1}, "tokenizer.json": {}},
    ],
)
def test_clip_s_text_encoder_is_given_clip_s_words_whatever_the_folder_says(model, spoilt):
    path = model("sd15", "folder")
    before = tiny.load(path).tokenize(["a red fox"])
    for name, text in spoilt.items():
        (path / "tokenizer" / name).write_text(json.dumps(text))
    tried.append(path)
    assert torch.equal(tiny.load(path).tokenize(["a red fox"]), before)


def test_another_vocabulary_with_a_word_too_many_is_refused(tmp_path):
    path = tiny.model(tmp_path / "model")
    file = path / "tokenizer" / "tokenizer.json"
    known = json.loads(file.read_text())
    known["added_tokens"].append(known["added_tokens"][0] | {"id": 5000, "content": "fox", "special": False})
    file.write_text(json.dumps(known))
    refused(path, "tokenizer", late=True)


def test_a_text_encoder_of_another_width_is_refused(model, whole):
    path = model("sd15", "folder")
    shutil.rmtree(path / "text_encoder")
    shutil.copytree(whole("sd2", "folder") / "text_encoder", path / "text_encoder")
    refused(path, "text encoder", "width", late=True)


def test_a_unet_that_predicts_its_variance_too_is_refused(model):
    path = model("sd15", "file")
    last = [f"model.diffusion_model.out.2.{what}" for what in ("weight", "bias")]
    changed(path, lambda tensors: tensors.update({name: torch.cat([tensors[name]] * 2) for name in last}))
    refused(path, "predicts 8", late=True)


@pytest.mark.parametrize(
    "kind",
    [
        {"use_flow_sigmas": True},
        {"trained_betas": [0.1] * 1000},
        {"num_train_timesteps": 10**9},
        {"num_train_timesteps": 0},
        {"beta_start": -1},
        {"beta_end": float("nan")},
        {"beta_start": None},
    ],
)
def test_a_schedule_that_is_none_of_ours_is_refused(model, kind):
    path = model("sd15", "folder")
    file = path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | kind))
    refused(path, "schedule")


def test_the_corpus_is_large():
    assert len(tried) >= 60
