"""Every form in which the console was ever called, and what each means: none may stop working."""

import re
from pathlib import Path

import pytest

import launch
from trainer.console import main
from trainer.console.flags import PAGE_FLAGS, given_settings
from trainer.contract.errors import InvalidSettings
from trainer.contract.wording import for_console

COMMANDS = ("train", "caption", "doctor", "export-dataset", "models", "presets", "convert", "strength")
# The forms without a command that stay, and the command that means the same
FORMS = {
    "--preset sdxl-style": "train --preset sdxl-style",
    "--config my.toml": "train --config my.toml",
    "--preset x --images ./my --name ana": "train --preset x --images ./my --name ana",
    "--preset x --base-model sd --memory-limit 8": "train --preset x --base-model sd --memory-limit 8",
    "--preset x --check": "train --preset x --check",
    "--preset x --queue": "train --preset x --queue",
    "--home h --preset x": "train --home h --preset x",
    "--home=h --preset=x --dataset.views=3": "train --home h --preset x --dataset.views 3",
    "--preset x --processes 2": "train --preset x --model.processes 2",
    "--preset x --machines 2 --machine-rank 1 --main-address a:29500": (
        "train --preset x --machines 2 --machine-rank 1 --main-address a:29500"
    ),
    "--resume ana": "train --resume ana",
    "--home h --resume ana --processes 4": "train --home h --resume ana --processes 4",
    "--resume ana --queue": "train --queue --resume ana",
    "--list-presets": "presets",
    "--list-presets --home h": "presets --home h",
    "--models": "models",
    "--home h --models": "models --home h",
    "--doctor d": "doctor d",
    "--doctor d --preset x --dataset.trigger_word ana": "doctor d --preset x --dataset.trigger_word ana",
    "--doctor d --config c.toml --name ana": "doctor d --config c.toml --name ana",
    "--doctor d --fix blurry near_duplicate": "doctor d --fix blurry near_duplicate",
    "--fix blurry --doctor=d --fix near_duplicate": "doctor d --fix blurry --fix near_duplicate",
    "--doctor d --undo --home h": "doctor d --undo --home h",
    "--export-dataset d --to n": "export-dataset d --to n",
    "--to n --export-dataset=d --dataset.views 2": "export-dataset d --to n --dataset.views 2",
    "--caption d --with blip": "caption d --with blip",
    "--with wd14 --caption=d --model m --download --overwrite --home h": (
        "caption d --with wd14 --model m --download --overwrite --home h"
    ),
    "--caption d --with wd14 --general-threshold 0.3 --character-threshold 0.9": (
        "caption d --with wd14 --general-threshold 0.3 --character-threshold 0.9"
    ),
    "--caption d --with florence2 --detail long": "caption d --with florence2 --detail long",
    "convert m.ckpt": "convert m.ckpt",
    "convert m.ckpt t.safetensors": "convert m.ckpt t.safetensors",
}
# All flags of the first versions; a value stands for those that take one
FLAGS = re.findall(
    r"--\S+",
    """
--preset=a --images=a --name=a --base-model=a --memory-limit=4 --config=a --home=a --queue --check --resume=a
--processes=2 --machines=2 --machine-rank=1 --main-address=a:1
--doctor=a --fix=a --undo --export-dataset=a --to=a --list-presets --models
--model.family=a --model.base_model=a --model.vae=a --model.clip_skip=1 --model.precision=a
--model.gradient_checkpointing=a --model.quantize=a --model.offload=a --model.memory_limit=1 --model.battery_limit=1
--model.heat_limit=1 --model.device=a --model.processes=1 --model.seed=1
--dataset.images=a --dataset.captions=a --dataset.concepts=a --dataset.folder_repeats=true --dataset.trigger_word=a
--dataset.views=1 --dataset.min_total_views=1 --dataset.max_total_views=1 --dataset.batch_size=1
--dataset.accumulation=1 --dataset.resolution=1 --dataset.further_resolutions=1 --dataset.upscale=true
--dataset.flip=true --dataset.caption_tokens=1 --dataset.caption_dropout=1 --dataset.shuffle_tags=true
--dataset.keep_tags=1 --dataset.tag_dropout=1 --dataset.background=a --dataset.alpha_mask=true
--dataset.prior_preservation=true --dataset.class_prompt=a --dataset.class_images=1 --dataset.class_share=1
--dataset.cache_limit=1
--adapter.rank=1 --adapter.alpha=1 --adapter.dropout=1 --adapter.targets=a --adapter.text_encoder=true
--adapter.text_encoder_2=true --adapter.start_from=a
--optimizer.learning_rate=1 --optimizer.text_learning_rate=1 --optimizer.lr_scheduler=a --optimizer.warmup=1
--optimizer.weight_decay=1 --optimizer.beta1=1 --optimizer.beta2=1 --optimizer.clip_norm=1
--objective.prediction=a --objective.min_snr_gamma=1 --objective.noise_offset=1 --objective.zero_terminal_snr=a
--objective.min_timestep=1 --objective.max_timestep=1 --objective.keep_from_timestep=1
--objective.keep_uncaptioned=true --objective.mask_keep=1
--preview.prompts=a --preview.negative_prompt=a --preview.every=1 --preview.steps=1 --preview.guidance_scale=1
--preview.seed=1 --preview.width=1 --preview.height=1
--output.name=a --output.dtype=a --output.files=1 --output.checkpoint_every=1 --output.keep_checkpoints=1
""",
)
# Names that settings had before, and have for good
FORMER = {
    "--dataset.protect": "dataset.prior_preservation",
    "--dataset.protect_prompt": "dataset.class_prompt",
    "--dataset.protect_pictures": "dataset.class_images",
    "--dataset.protect_share": "dataset.class_share",
    "--model.checkpointing": "model.gradient_checkpointing",
    "--model.stream": "model.offload",
    "--optimizer.schedule": "optimizer.lr_scheduler",
}
TYPED = {"--machines": int, "--machine-rank": int}
TYPED |= dict.fromkeys(("--config", "--home", "--doctor", "--export-dataset", "--to"), Path)


def meaning(line):
    """The command and what is set, without the flag that chose the command."""
    name, flags = main.parsed(line.split())
    return name, {key: value for key, value in flags.items() if key not in ("list_presets", "models")}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_without_a_command_means_what_the_command_does(form):
    assert launch.program(form.split()) == ["trainer.console.main", *form.split()]
    assert meaning(form) == meaning(FORMS[form])


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_of_the_first_versions_sets_what_it_did(flag):
    name, _, value = flag.partition("=")
    _, flags = main.parsed(["--preset", "x", *([name, value] if value else [name])])
    key = {"--processes": "model.processes"}.get(name, name[2:] if "." in name else name[2:].replace("-", "_"))
    given = TYPED.get(name, str)(value) if value else True
    several = ("--fix", "--dataset.concepts", "--dataset.further_resolutions", "--preview.prompts")
    assert flags[key] == ([given] if name in several else given)


@pytest.mark.parametrize("flag", FORMER)
@pytest.mark.parametrize("command", ["train", "doctor d", "--doctor d", "--preset x"])
def test_a_setting_goes_by_its_former_name_too(flag, command):
    assert main.parsed([*command.split(), flag, "1"])[1][FORMER[flag]] == "1"


def test_a_full_name_overrides_a_short_one_wherever_it_is():
    for line in ("--images short --dataset.images full", "--dataset.images full --images short"):
        assert given_settings(main.parsed(line.split())[1]) == {"dataset": {"images": "full"}}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("--doctor d --list-presets --models", "presets"),
        ("--doctor d --models --check", "models"),
        ("--doctor d --export-dataset e --to n", "export-dataset"),
        ("--resume r --doctor d", "doctor"),
        ("--preset x --fix a --undo", "train"),
    ],
)
def test_of_several_flags_that_choose_a_command_the_same_one_counts_as_ever(line, name):
    assert meaning(line)[0] == name


@pytest.mark.parametrize("arguments", [[], ["--port", "8000"], ["--home", "h"], ["--listen=x", "--password-file", "p"]])
def test_flags_of_the_page_alone_open_it(arguments):
    assert launch.program(arguments) == ["app.ui", *arguments]
    assert launch.PAGE_FLAGS == PAGE_FLAGS


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("trian --preset x", "There is no command trian.", "Did you mean train? `python launch.py --help`"),
        ("modles", "There is no command modles.", "Did you mean models?"),
        ("tset", "There is no command tset.", "Did you mean test?"),
        ("qqq", "There is no command qqq.", "`python launch.py --help` lists the commands."),
        ("--prset x", "There is no flag --prset.", "Did you mean --preset? `python launch.py train --help`"),
        ("train --network_dim 8", "There is no flag --network_dim.", "Here that is --adapter.rank."),
        ("--unet_lr=1e-4", "There is no flag --unet_lr.", "Here that is --optimizer.learning_rate."),
        ("--optimizer_type Prodigy", "There is no flag --optimizer_type.", "Not here yet: AdamW is used"),
        ("--xformers", "There is no flag --xformers.", "Not needed: PyTorch's own attention is used."),
        ("--docter d", "There is no flag --docter.", "Did you mean --doctor?"),
        ("--prot 8000", "There is no flag --prot.", "Did you mean --port?"),
        ("--preset x --port 8000", "There is no flag --port.", "It is a flag of the page"),
        ("train --adapter.rnak=4", "There is no flag --adapter.rnak.", "Did you mean --adapter.rank?"),
        ("caption d --wiht blip --with blip", "There is no flag --wiht.", "Did you mean --with?"),
        ("caption d --with blip --preset x", "There is no flag --preset.", "`python launch.py caption --help`"),
        ("doctor d e", "Unexpected argument: e.", "`python launch.py doctor --help`"),
        ("doctor", "The following arguments are required: DIR.", "`python launch.py doctor --help`"),
        ("convert", "The following arguments are required: MODEL.ckpt.", "`python launch.py convert --help`"),
        ("strength run", "The following arguments are required: FILE.", "`python launch.py strength --help`"),
    ],
)
def test_a_wrong_word_is_named_with_the_nearest_right_one(line, message, hint):
    with pytest.raises(InvalidSettings) as caught:
        main.parsed(line.split())
    assert for_console(caught.value.message) == message
    assert for_console(caught.value.hint).startswith(hint)


def test_a_wrong_command_ends_with_code_2_in_the_form_of_our_errors(capsys):
    assert main.main(["trian"]) == 2
    assert capsys.readouterr().out.startswith("Error (invalid_settings): There is no command trian.\n  → Did you mean")


def shown(capsys, *arguments):
    assert main.main(arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("asked", [["--help"], ["-h"], ["help"], ["--port", "1", "--help"], ["--home", "x", "-h"]])
def test_the_overview_names_every_command_on_one_screen_and_where_all_settings_are(asked, capsys):
    text = shown(capsys, *asked)
    assert [name for name in (*COMMANDS, "test") if f"\n  {name} " not in text] == []
    assert "`python launch.py train --help`" in text
    assert all(flag in text for flag in PAGE_FLAGS)
    assert text.count("\n") <= 24


@pytest.mark.parametrize("command", (*COMMANDS, "test"))
@pytest.mark.parametrize("asking", ["{} --help", "{} -h", "help {}"])
def test_each_command_has_a_help_of_its_own_that_fits_a_screen(command, asking, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = shown(capsys, *asking.format(command).split())
    assert text.startswith(f"usage: python launch.py {command} ")
    assert command == "train" or text.count("\n") <= 40


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("--preset x --help", "train"),
        ("--home x --resume r -h", "train"),
        ("--caption d --help", "caption"),
        ("--doctor d --help", "doctor"),
        ("--list-presets -h", "presets"),
    ],
)
def test_a_form_without_a_command_shows_the_help_of_its_command(line, command, capsys):
    assert shown(capsys, *line.split()).startswith(f"usage: python launch.py {command} ")


def test_the_help_of_training_begins_with_the_flags_that_most_people_need(capsys):
    text = shown(capsys, "train", "--help")
    order = ["--preset", "--images", "--name", "--base-model", "--check", "--resume", "\nmodel:", "\ndataset:"]
    assert sorted(order, key=text.index) == order
