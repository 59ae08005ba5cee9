"""A veteran's word finds its setting, or what stands for it here."""

import re
from itertools import takewhile

import pytest

from trainer.contract.home import CHECKOUT
from trainer.contract.schema import all_settings
from trainer.contract.vocabulary import ELSEWHERE, NAMES, called_here, kohya_name, search, words_of

# What people of kohya_ss, sd-scripts, OneTrainer and diffusers type, and the setting that comes first
MEANT = {
    "network dim": "adapter.rank",
    "network_dim": "adapter.rank",
    "--network_dim": "adapter.rank",
    "dim": "adapter.rank",
    "rank": "adapter.rank",
    "alpha": "adapter.alpha",
    "network_alpha": "adapter.alpha",
    "unet lr": "optimizer.learning_rate",
    "lr": "optimizer.learning_rate",
    "learning rate": "optimizer.learning_rate",
    "te lr": "optimizer.text_learning_rate",
    "text_encoder_lr": "optimizer.text_learning_rate",
    "scheduler": "optimizer.lr_scheduler",
    "lr_scheduler": "optimizer.lr_scheduler",
    "warmup": "optimizer.warmup",
    "epochs": "dataset.views",
    "repeats": "dataset.folder_repeats",
    "max_train_steps": "dataset.max_total_views",
    "save every": "output.files",
    "save_every_n_epochs": "output.files",
    "bucket": "dataset.resolution",
    "enable_bucket": "dataset.resolution",
    "keep tokens": "dataset.keep_tags",
    "shuffle": "dataset.shuffle_tags",
    "shuffle_caption": "dataset.shuffle_tags",
    "regularization": "dataset.prior_preservation",
    "reg_data_dir": "dataset.concepts",
    "class tokens": "dataset.trigger_word",
    "instance prompt": "dataset.trigger_word",
    "sample prompts": "preview.prompts",
    "sample_every_n_steps": "preview.every",
    "clip skip": "model.clip_skip",
    "noise offset": "objective.noise_offset",
    "min snr": "objective.min_snr_gamma",
    "snr": "objective.min_snr_gamma",
    "v pred": "objective.prediction",
    "ztsnr": "objective.zero_terminal_snr",
    "flip_aug": "dataset.flip",
    "mixed precision": "model.precision",
    "batch": "dataset.batch_size",
    "grad accum": "dataset.accumulation",
    "caption dropout": "dataset.caption_dropout",
    "masked training": "objective.mask_keep",
    "network dropout": "adapter.dropout",
    "network_weights": "adapter.start_from",
    "gradient checkpointing": "model.gradient_checkpointing",
    "block swap": "model.offload",
    "fp8": "model.quantize",
    "max grad norm": "optimizer.clip_norm",
    "cfg": "preview.guidance_scale",
    "save precision": "output.dtype",
    "save state": "output.checkpoint_every",
    "cache latents": "dataset.cache_limit",
    "max token length": "dataset.caption_tokens",
    "instance_data_dir": "dataset.images",
    "vae": "model.vae",
    "seed": "model.seed",
    "--network_dim 32": "adapter.rank",
    "weight_decay=0.01": "optimizer.weight_decay",
    "caption_prefix": "dataset.trigger_word",
    "reg images": "dataset.concepts",
    "full_fp16": "model.precision",
    "zsnr": "objective.zero_terminal_snr",
    "1024,1024": "dataset.resolution",
    "gpu": "model.device",
    "bs": "dataset.batch_size",
}
# And those without a setting, with a piece of what is said
INSTEAD = {
    "xformers": "PyTorch's own attention",
    "sdpa": "PyTorch's own attention",
    "prodigy": "AdamW is used",
    "optimizer": "AdamW is used",
    "adamw8bit": "AdamW is used",
    "conv": "Not here yet",
    "conv_dim": "Not here yet",
    "LoCon": "Not here yet",
    "dora": "Not here yet",
    "block weights": "all blocks learn alike",
    "huber": "MSE",
    "multires noise": "noise offset",
    "wandb": "events.jsonl",
    "output_dir": "runs/",
    "flux": "SDXL are",
    "torch compile": "Not needed",
    "max_data_loader_n_workers": "encoded once",
    "resume": "Any run can be resumed",
    "ema": "Not here yet",
    "textual inversion": "Not here yet",
    "cosine_with_restarts": "cosine, linear or constant",
    "lr_scheduler_num_cycles": "cosine, linear or constant",
    "polynomial": "cosine, linear or constant",
    "loraplus_unet_lr_ratio": "same rate",
    "bucket_reso_steps": "buckets follow from the resolution",
    "min_bucket_reso": "buckets follow from the resolution",
    "sample_sampler": "own sampler",
    "euler_a": "own sampler",
    "color_aug": "as they are, or mirrored",
    "enable_wildcard": "each view shows one",
    "caption_extension": ".caption",
    "caption_separator": "commas",
    "wd14 tagger": "Automatic captions",
    "caption_suffix": "Edit many captions",
    "token_warmup_min": "first step",
    "network_train_text_encoder_only": "UNet is always trained",
    "module_dropout": "LoRA dropout",
    "metadata_title": "by itself",
    "resize lora": "not merged or resized",
    "finetune": "LoRAs are trained",
    "huggingface_repo_id": "nothing is uploaded",
    "config_file": "not imported yet",
    "preset": "At the top",
    "vae_batch_size": "encoded once",
    "scale_v_pred_loss_like_noise_pred": "MSE",
    "huber_c": "MSE",
}


@pytest.mark.parametrize(("typed", "place"), MEANT.items())
def test_the_word_finds_the_setting_first(typed, place):
    assert search(typed).places[:1] == (place,)


@pytest.mark.parametrize(("typed", "said"), INSTEAD.items())
def test_where_there_is_no_setting_a_sentence_says_what_stands_for_it(typed, said):
    assert any(said in one.text for one in search(typed).instead)


def test_what_stands_for_a_word_is_said_of_that_word():
    assert [one.word for one in search("AdamW8bit").instead] == ["adamw8bit"]
    assert [one.word for one in search("sdpa").instead] == ["sdpa"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("network_dim", "Here that is ⟦setting:adapter.rank⟧."),
        ("num_repeats", "Here that is ⟦setting:dataset.folder_repeats⟧ or ⟦setting:dataset.views⟧."),
        ("optimizer_type", "Not here yet: AdamW is used, with the settings of the section Optimizer."),
        ("rnak", ""),
    ],
)
def test_another_program_s_setting_is_answered_with_ours(name, hint):
    assert called_here(name) == hint


def test_every_setting_has_its_names():
    assert list(NAMES) == [info.place for info in all_settings()]


@pytest.mark.parametrize("place", NAMES)
def test_every_setting_is_found_by_each_of_its_names(place):
    kohya, others = NAMES[place]
    for name in [place, *filter(None, [*kohya.split(","), *others.split(",")])]:
        found = search(name)
        assert place in found.places or found.instead, name


def test_a_name_like_ours_is_not_repeated():
    assert kohya_name("adapter.rank") == "network dim"
    assert kohya_name("model.clip_skip") == ""
    assert kohya_name("model.heat_limit") == ""


@pytest.mark.parametrize(
    ("typed", "near"), [("netwrok dim", "network dim"), ("xfromers", "xformers"), ("lerning rate", "")]
)
def test_a_misspelt_word_is_answered_with_the_nearest(typed, near):
    found = search(typed)
    assert found.places == () == found.instead
    assert near in found.nearest if near else found.nearest


@pytest.mark.parametrize("typed", ["", "  ", "--", "___"])
def test_nothing_typed_finds_nothing(typed):
    assert search(typed) == search("")


def test_nonsense_is_said_to_be_none():
    assert search("qqqq zzzz") == search("vvvv xxxx")
    assert not search("qqqq zzzz").nearest


def test_the_reader_s_own_language_is_searched_too():
    labels = {"adapter.rank": "Rang", "optimizer.learning_rate": "Lernrate"}
    assert search("lernr", labels).places == ("optimizer.learning_rate",)
    assert search("rang", labels).places[0] == "adapter.rank"
    assert search("lernr").places == ()


def test_words_are_read_from_any_spelling():
    assert words_of("--Network_Dim=8") == ("network", "dim", "8")
    assert words_of("U-Net LR") == ("u", "net", "lr")


def test_no_word_stands_for_two_things():
    """Of what has no setting; a setting may share a word with another, and both are shown."""
    words = [words_of(word) for theirs, _ in ELSEWHERE for word in theirs.split(",")]
    assert len(words) == len(set(words))


def test_the_table_for_users_of_kohyas_scripts_says_the_same():
    text = (CHECKOUT / "assets" / "docs" / "api.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.partition("### For users of kohya's scripts")[2].splitlines()[4:]]
    told = [(theirs, ours) for theirs, ours in takewhile(lambda row: len(row) == 2, rows)]
    assert len(told) > 10
    for theirs, ours in told:
        for name in re.findall(r"`(\w+)`", theirs):
            assert f"--{search(name).places[0]}" in ours, name
