"""What other programs call our settings, and the search over all of these words.

The names of kohya_ss and sd-scripts stand beside ours, as most guides use them; those of OneTrainer, diffusers and
everyday speech are found, too. What has no setting here has a sentence that says what stands for it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from trainer.contract.schema import all_settings
from trainer.contract.wording import setting

# Setting: kohya's name, then others'
NAMES: Mapping[str, tuple[str, str]] = {
    "model.family": ("sdxl, v2", "architecture, model type, base model type"),
    "model.base_model": ("pretrained model name or path", "checkpoint, base model name, model path"),
    "model.vae": ("vae", "vae override, vae model name"),
    "model.clip_skip": ("clip skip", "text encoder layer skip"),
    "model.precision": ("mixed precision", "fp16, bf16, full fp16, full bf16, train dtype, weight dtype, no half vae"),
    "model.gradient_checkpointing": ("gradient checkpointing", "activation checkpointing, recompute"),
    "model.quantize": ("fp8 base", "qlora, nf4, int8, 8 bit base model, 4 bit base model, quantization"),
    "model.offload": ("blocks to swap", "block swap, cpu offload, layer offload fraction, lowvram, low vram"),
    "model.memory_limit": ("", "vram limit, lowram, highvram, max memory"),
    "model.battery_limit": ("", "battery, power"),
    "model.heat_limit": ("", "temperature, overheating"),
    "model.device": ("", "gpu ids, gpu, cuda, cpu, mps, train device"),
    "model.processes": (
        "num processes",
        "multi gpu, distributed, num machines, accelerate launch, extra accelerate launch args",
    ),
    "model.seed": ("seed", "random seed"),
    "dataset.images": ("train data dir", "image folder, image dir, instance data dir, concept path"),
    "dataset.captions": ("in json", "caption file, metadata, jsonl, caption column"),
    "dataset.concepts": (
        "subsets",
        "dataset config, multiple concepts, regularization folder, reg data dir, reg images",
    ),
    "dataset.folder_repeats": ("repeats in folder names", "num repeats, repeats, balancing"),
    "dataset.trigger_word": (
        "class tokens",
        "caption prefix, instance prompt, activation word, activation token, trigger, keyword",
    ),
    "dataset.views": (
        "repeats × epochs",
        "max train epochs, epochs, num train epochs, num repeats, repeats, dataset repeats, steps",
    ),
    "dataset.min_total_views": ("", "minimum steps, min steps"),
    "dataset.max_total_views": ("max train steps", "maximum steps, max steps, steps, stop training after"),
    "dataset.batch_size": ("train batch size", "batch, bs, local batch size"),
    "dataset.accumulation": ("gradient accumulation steps", "grad accum, accumulation steps"),
    "dataset.resolution": (
        "resolution, max bucket reso",
        "bucket, enable bucket, aspect ratio bucketing, image size, max resolution, 512 512, 768 768, 1024 1024",
    ),
    "dataset.further_resolutions": ("", "multi resolution, several resolutions, bucket, resolutions"),
    "dataset.upscale": ("bucket no upscale, inverted", "enlarge, small images"),
    "dataset.flip": ("flip aug", "mirror, random flip, augmentation, horizontal flip"),
    "dataset.caption_tokens": ("max token length", "long captions, 225, chunks"),
    "dataset.caption_dropout": (
        "caption dropout rate",
        "unconditional, dropout of captions, caption dropout every n epochs",
    ),
    "dataset.shuffle_tags": ("shuffle caption", "tag shuffling, shuffle tags"),
    "dataset.keep_tags": ("keep tokens", "keep tags count, keep tokens separator"),
    "dataset.tag_dropout": ("caption tag dropout rate", "drop tags"),
    "dataset.background": ("", "transparent, transparency, alpha background"),
    "dataset.alpha_mask": ("alpha mask", "transparency mask"),
    "dataset.prior_preservation": ("prior loss", "regularization, with prior preservation, dreambooth, reg images"),
    "dataset.class_prompt": ("class in the folder name", "class prompt, regularization prompt"),
    "dataset.class_images": ("", "num class images, regularization images"),
    "dataset.class_share": ("prior loss weight", "weight of regularization"),
    "dataset.cache_limit": (
        "cache latents to disk",
        "cache latents, cache text encoder outputs, sdxl cache text encoder outputs, latent caching",
    ),
    "adapter.rank": ("network dim", "dim, lora rank, r, dimension, lora dim"),
    "adapter.alpha": ("network alpha", "lora alpha"),
    "adapter.dropout": ("network dropout", "lora dropout"),
    "adapter.targets": ("network args", "target modules, layer filter, attn only, network module, lora type"),
    "adapter.text_encoder": ("network train unet only, inverted", "train text encoder, train te, te1, te"),
    "adapter.text_encoder_2": ("", "train text encoder 2, te2, second text encoder"),
    "adapter.start_from": ("network weights", "lora model name, continue a lora, pretrained lora, dim from weights"),
    "optimizer.learning_rate": ("unet lr", "lr, initial lr, unet learning rate, learning rate unet"),
    "optimizer.text_learning_rate": ("text encoder lr", "te lr, text encoder learning rate, te1 lr, te2 lr"),
    "optimizer.lr_scheduler": (
        "lr scheduler",
        "scheduler, cosine, constant with warmup, learning rate scheduler, schedule",
    ),
    "optimizer.warmup": ("lr warmup steps", "warm up, lr warmup, learning rate warmup steps"),
    "optimizer.weight_decay": ("optimizer args weight decay", "optimizer, adamw, regularisation of weights"),
    "optimizer.beta1": ("optimizer args betas", "adam beta1, optimizer, momentum"),
    "optimizer.beta2": ("optimizer args betas", "adam beta2, optimizer"),
    "optimizer.clip_norm": ("max grad norm", "gradient clipping, clip grad norm"),
    "objective.prediction": ("v parameterization", "v prediction, v pred, epsilon, prediction type"),
    "objective.min_snr_gamma": ("min snr gamma", "snr, snr gamma, loss weighting"),
    "objective.noise_offset": ("noise offset", "offset noise, offset noise weight, adaptive noise scale"),
    "objective.zero_terminal_snr": ("zero terminal snr", "ztsnr, zsnr, rescale noise scheduler to zero terminal snr"),
    "objective.min_timestep": ("min timestep", "noising strength, timestep range, timesteps"),
    "objective.max_timestep": ("max timestep", "max noising strength, timestep range, timesteps"),
    "objective.keep_from_timestep": ("", "keep composition, keep colors, style only, timesteps"),
    "objective.keep_uncaptioned": ("", "keep the base model, uncaptioned"),
    "objective.mask_keep": ("masked loss", "masked training, unmasked weight, unmasked probability"),
    "preview.prompts": ("sample prompts", "validation prompt, sample definition, preview prompts"),
    "preview.negative_prompt": ("sample prompts --n", "validation negative prompt"),
    "preview.every": (
        "sample every n steps",
        "sample every n epochs, sample after, validation epochs, sample at first",
    ),
    "preview.steps": ("sample prompts --s", "inference steps, diffusion steps, sample steps"),
    "preview.guidance_scale": ("sample prompts --l", "cfg, cfg scale, guidance"),
    "preview.seed": ("sample prompts --d", "sample seed"),
    "preview.width": ("sample prompts --w", "sample width, sample size"),
    "preview.height": ("sample prompts --h", "sample height, sample size"),
    "output.name": ("output name", "lora name, save filename prefix, model name"),
    "output.dtype": ("save precision", "output data type, save dtype, float16"),
    "output.tags": ("no metadata", "metadata, ss tag frequency"),
    "output.files": ("save every n epochs", "save every, save every n steps, save last n epochs, save n epoch ratio"),
    "output.checkpoint_every": ("save state", "checkpointing steps, backup after, save state every"),
    "output.keep_checkpoints": ("save last n steps state", "checkpoints total limit, rolling backup count"),
}
# What has no setting: words, and what stands for it (the page has it in its languages, by the first word)
ELSEWHERE: tuple[tuple[str, str], ...] = (
    ("xformers, sdpa, mem eff attn, flash attention, attention", "Not needed: PyTorch's own attention is used."),
    (
        "prodigy, optimizer type, adamw8bit, adamw 8bit, 8bit adam, paged adamw8bit, dadaptation, dadapt adam, lion, "
        "lion8bit, adafactor, came, schedule free, adamw schedule free, d coef, relative step, optimizer",
        "Not here yet: AdamW is used, with the settings of the section Optimizer.",
    ),
    (
        "cosine with restarts, restarts, lr scheduler num cycles, num cycles, lr scheduler power, lr scheduler type, "
        "lr scheduler args, polynomial, inverse sqrt, warmup stable decay, lr decay steps, rex, adafactor scheduler",
        "Not here yet: the learning rate is cosine, linear or constant, after a warmup.",
    ),
    (
        "loraplus, lora+, loraplus lr ratio, loraplus unet lr ratio, loraplus text encoder lr ratio",
        "Not here yet: both matrices of a LoRA learn at the same rate.",
    ),
    (
        "bucket reso steps, min bucket reso, bucket resolution steps, skip image resolution",
        "Not needed: buckets follow from the resolution, in steps that suit the base model.",
    ),
    (
        "sampler, sample sampler, euler a, euler, ddim, dpmsolver, dpm++ 2m, k euler a, ddpm, heun, lms, pndm",
        "Not here: previews use the base model's own sampler.",
    ),
    (
        "lycoris, locon, loha, lokr, dora, conv, conv dim, network conv dim, conv alpha, ia3, oft, algo",
        "Not here yet: LoRA on attention and feed-forward layers is trained.",
    ),
    (
        "block weights, block lr, block dims, down lr weight, mid lr weight, lbw",
        "Not here yet: all blocks learn alike.",
    ),
    (
        "huber, huber c, huber schedule, loss type, l1, smooth l1, mse, mae, debiased estimation loss, "
        "scale v pred loss, scale v pred loss like noise pred, v pred like loss, edm2",
        "The loss is MSE, weighted by min-SNR; others are not here yet.",
    ),
    (
        "multires noise, pyramid noise, ip noise gamma, perturbation noise, multires noise iterations, "
        "multires noise discount",
        "Not here: noise offset is.",
    ),
    ("ema, ema decay, scale weight norms, max norm", "Not here yet."),
    (
        "flux, sd3, flow matching, discrete flow shift, shift, guidance value, z image, qwen",
        "Not here yet: SD 1.x, 2.x and SDXL are.",
    ),
    (
        "max data loader n workers, persistent workers, persistent data loader workers, num cpu threads per process, "
        "dataloader threads, vae batch size, text encoder batch size",
        "Not needed: images are encoded once, and steps read the cache.",
    ),
    (
        "wandb, tensorboard, logging dir, log with, log prefix, log tracker, log tracker name",
        "The page draws the loss; `events.jsonl` in a run's folder holds every figure.",
    ),
    (
        "output dir, output folder, workspace dir, save to",
        "Every run has its own folder in `runs/` of the home folder.",
    ),
    ("save model as, safetensors, ckpt", "LoRA files are .safetensors, always."),
    (
        "resume, save state to continue, backup",
        "Any run can be resumed: the page Runs has a button, the console a flag of this name.",
    ),
    (
        "random crop, face crop aug range, crop jitter",
        "Not here: crops are set image by image on the page Dataset.",
    ),
    (
        "color aug, hue, brightness, contrast, saturation, rotation, random rotate",
        "Not here: images are shown as they are, or mirrored (Flip horizontally).",
    ),
    (
        "weighted captions, weighted prompts",
        "Captions are read as plain words; the doctor names prompt syntax.",
    ),
    (
        "wildcards, enable wildcard, dynamic prompts",
        "No switch needed: of words in curly brackets, a|b, each view shows one.",
    ),
    ("caption extension", "No switch needed: .txt, .caption and .cap files beside the images are read."),
    ("caption separator, secondary separator", "Not needed: tags are separated by commas."),
    (
        "captioning, automatic captions, caption images, wd14 tagger, wd14 captioning, tagger, blip, blip captioning",
        "On the page Dataset: Automatic captions.",
    ),
    (
        "caption suffix, postfix, prefix, add tags, caption search and replace",
        "On the page Dataset: Edit many captions adds, removes and replaces words.",
    ),
    ("token warmup min, token warmup step", "Not here: all tags are shown from the first step on."),
    (
        "torch compile, dynamo backend, deepspeed, fsdp, fused backward pass",
        "Not needed: the layers are fused by themselves.",
    ),
    (
        "stop text encoder training, stop training text encoder after, train text encoder epochs",
        "Not here yet: it learns to the end, at its own rate.",
    ),
    ("train text encoder only, network train text encoder only", "Not here: the UNet is always trained."),
    ("module dropout, rank dropout", "Not here: LoRA dropout is."),
    (
        "training comment, metadata title, metadata author, metadata description, metadata license, metadata tags",
        "Not here: the LoRA file says its name, trigger word and settings by itself.",
    ),
    (
        "merge lora, extract lora, resize lora, svd merge, base weights",
        "Not here: LoRAs are trained, not merged or resized.",
    ),
    ("finetune, fine tuning, finetuning, full finetune", "Not here: LoRAs are trained; the base model stays as it is."),
    ("huggingface upload, huggingface repo id, huggingface token", "Not here: nothing is uploaded."),
    (
        "config file, load configuration, import kohya, output config",
        "Settings of other programs are not imported yet: enter them here, or under As TOML by Atelier's names.",
    ),
    ("preset, presets", "At the top of the settings; your own are saved below them."),
    ("validation split, validation set, holdout, validate", "Not here yet."),
    ("textual inversion, embedding, pivotal tuning, additional embeddings", "Not here yet."),
    ("learning strength, strength, rate times alpha", "Learning rate × alpha / rank: shown beside these three."),
)
SEPARATORS = re.compile(r"[^\w×+]+|_+")
NEAREST = 3


class Instead(NamedTuple):
    """What stands here for a word that has no setting."""

    key: str  # the first of the words that it stands for
    text: str
    word: str  # the one of them that was meant


@dataclass(frozen=True)
class Found:
    """What a search found: settings, best first; else what stands for the words; else the nearest words there are."""

    places: tuple[str, ...] = ()
    instead: tuple[Instead, ...] = ()
    nearest: tuple[str, ...] = ()
    exact: int = 0  # so many settings, the first ones, are called exactly so, here or elsewhere


def kohya_name(place: str) -> str:
    """A setting's name in kohya_ss, empty where it has none or ours is the same."""
    theirs = NAMES[place][0]
    return "" if words_of(theirs) == words_of(place.rpartition(".")[2]) else theirs


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, lower case, without what parts them: "--network_dim" is ("network", "dim")."""
    return tuple(SEPARATORS.sub(" ", text.lower()).split())


def search(wanted: str, labels: Mapping[str, str] | None = None) -> Found:
    """The settings that somebody means by these words, whichever program they come from.

    Args:
        wanted: As typed.
        labels: A setting's name and help in the reader's language, by "section.setting".
    """
    words = words_of(wanted.partition("=")[0])
    found = _search(words, labels or {})
    if len(words) > 1 and words[-1].isdecimal() and not (found.places or found.instead):  # "--network_dim 32"
        return _search(words[:-1], labels or {})
    return found


def called_here(name: str) -> str:
    """Returns what another program's setting is called here, or what stands for it, as a hint; nothing if unknown."""
    found = search(name)
    if found.exact:
        return f"Here that is {' or '.join(setting(place) for place in found.places[: min(found.exact, 2)])}."
    return " ".join(one.text for one in found.instead)


def _search(words: tuple[str, ...], labels: Mapping[str, str]) -> Found:
    if not words:
        return Found()
    ranks = {place: _rank(words, phrases) for place, phrases in _phrases(labels).items()}
    places = tuple(sorted((place for place, rank in ranks.items() if rank), key=lambda place: -ranks[place]))
    said = [(_rank(words, _split(theirs)), theirs, text) for theirs, text in ELSEWHERE]
    best = max((rank for rank, _, _ in said), default=0)
    instead: tuple[Instead, ...] = ()
    if best and (best >= BEGINS or not places):
        instead = tuple(_instead(words, theirs, text) for rank, theirs, text in said if rank == best)
    if instead and best == WHOLE:  # beside what is called exactly so, only settings that are, too
        places = tuple(place for place in places if ranks[place] == WHOLE)
    if places or instead:
        return Found(places, instead, exact=sum(ranks[place] == WHOLE for place in places))
    known = {" ".join(words_of(phrase)) for phrase in _every_word(labels)}
    return Found(nearest=tuple(get_close_matches(" ".join(words), known, n=NEAREST, cutoff=0.6)))


def _instead(words: tuple[str, ...], theirs: str, text: str) -> Instead:
    phrases = [phrase.strip() for phrase in theirs.split(",")]
    return Instead(phrases[0], text, max(phrases, key=lambda phrase: _rank(words, [words_of(phrase)])))


WHOLE, BEGINS, EVERY, PART = 4, 3, 2, 1


def _rank(wanted: tuple[str, ...], phrases: list[tuple[str, ...]]) -> int:
    """How well words fit one of the phrases: the same, its beginning, all of them in it, or parts of its words."""
    best = 0
    for phrase in phrases:
        if phrase == wanted:
            return WHOLE
        if phrase[: len(wanted)] == wanted:
            best = max(best, BEGINS)
        elif all(any(word.startswith(one) for word in phrase) for one in wanted):
            best = max(best, EVERY)
        elif len(" ".join(wanted)) > 2 and " ".join(wanted) in " ".join(phrase):
            best = max(best, PART)
    return best


def _split(theirs: str) -> list[tuple[str, ...]]:
    return [words_of(phrase) for phrase in theirs.split(",")]


def _phrases(labels: Mapping[str, str]) -> dict[str, list[tuple[str, ...]]]:
    made = {}
    for info in all_settings():
        kohya, others = NAMES[info.place]
        texts = [info.place, info.name, info.label, labels.get(info.place, ""), *kohya.split(","), *others.split(",")]
        made[info.place] = [words for words in map(words_of, texts) if words]
    return made


def _every_word(labels: Mapping[str, str]) -> Iterator[str]:
    yield from (label for label in labels.values() if label)
    for place, (kohya, others) in NAMES.items():
        yield from (place.rpartition(".")[2], *filter(None, [*kohya.split(","), *others.split(",")]))
    for theirs, _ in ELSEWHERE:
        yield from theirs.split(",")
