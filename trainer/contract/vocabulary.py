"""What other programs call our settings, and the search over all of these words.

The names of kohya_ss and sd-scripts stand beside ours, as most guides use them; those of OneTrainer, diffusers and
everyday speech are found, too. What has no setting here has a sentence that says what stands for it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from trainer.contract.schema import all_settings

# Setting: kohya's name, then others'
NAMES: Mapping[str, tuple[str, str]] = {
    "model.family": ("sdxl, v2", "architecture, model type, base model type"),
    "model.base_model": ("pretrained model name or path", "checkpoint, base model name, model path"),
    "model.vae": ("vae", "vae override, vae model name"),
    "model.clip_skip": ("clip skip", "text encoder layer skip"),
    "model.precision": ("mixed precision", "fp16, bf16, full bf16, train dtype, weight dtype, no half vae"),
    "model.gradient_checkpointing": ("gradient checkpointing", "activation checkpointing, recompute"),
    "model.quantize": ("fp8 base", "qlora, nf4, int8, 8 bit base model, 4 bit base model, quantization"),
    "model.offload": ("blocks to swap", "block swap, cpu offload, layer offload fraction, lowvram, low vram"),
    "model.memory_limit": ("", "vram limit, lowram, highvram, max memory"),
    "model.battery_limit": ("", "battery, power"),
    "model.heat_limit": ("", "temperature, overheating"),
    "model.device": ("", "gpu ids, cuda, cpu, mps, train device"),
    "model.processes": ("num processes", "multi gpu, distributed, num machines, accelerate launch"),
    "model.seed": ("seed", "random seed"),
    "dataset.images": ("train data dir", "image folder, image dir, instance data dir, concept path"),
    "dataset.captions": ("in json", "caption file, metadata, jsonl, caption extension, caption column"),
    "dataset.concepts": ("subsets", "dataset config, multiple concepts, regularization folder, reg data dir"),
    "dataset.folder_repeats": ("repeats in folder names", "num repeats, repeats, balancing"),
    "dataset.trigger_word": ("class tokens", "instance prompt, activation word, activation token, trigger, keyword"),
    "dataset.views": ("repeats × epochs", "max train epochs, epochs, num train epochs, num repeats, steps"),
    "dataset.min_total_views": ("", "minimum steps, min steps"),
    "dataset.max_total_views": ("max train steps", "maximum steps, max steps, steps, stop training after"),
    "dataset.batch_size": ("train batch size", "batch, local batch size"),
    "dataset.accumulation": ("gradient accumulation steps", "grad accum, accumulation steps"),
    "dataset.resolution": ("resolution, max bucket reso", "bucket, enable bucket, aspect ratio bucketing, image size"),
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
    "dataset.cache_limit": ("cache latents to disk", "cache latents, cache text encoder outputs, latent caching"),
    "adapter.rank": ("network dim", "dim, lora rank, r, dimension, lora dim"),
    "adapter.alpha": ("network alpha", "lora alpha"),
    "adapter.dropout": ("network dropout", "lora dropout, rank dropout"),
    "adapter.targets": ("network args", "target modules, layer filter, attn only, network module, lora type"),
    "adapter.text_encoder": ("network train unet only, inverted", "train text encoder, train te, te1, te"),
    "adapter.text_encoder_2": ("", "train text encoder 2, te2, second text encoder"),
    "adapter.start_from": ("network weights", "lora model name, continue a lora, pretrained lora, dim from weights"),
    "optimizer.learning_rate": ("unet lr", "lr, unet learning rate, learning rate unet"),
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
    "objective.zero_terminal_snr": ("zero terminal snr", "ztsnr, rescale noise scheduler to zero terminal snr"),
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
    "preview.steps": ("sample prompts --s", "inference steps, diffusion steps, sample sampler, sampler"),
    "preview.guidance_scale": ("sample prompts --l", "cfg, cfg scale, guidance"),
    "preview.seed": ("sample prompts --d", "sample seed"),
    "preview.width": ("sample prompts --w", "sample width, sample size"),
    "preview.height": ("sample prompts --h", "sample height, sample size"),
    "output.name": ("output name", "lora name, save filename prefix, model name"),
    "output.dtype": ("save precision", "output data type, save dtype, float16"),
    "output.tags": ("no metadata", "metadata, training comment, ss tag frequency"),
    "output.files": ("save every n epochs", "save every, save every n steps, save last n epochs, save n epoch ratio"),
    "output.checkpoint_every": ("save state", "checkpointing steps, backup after, save state every"),
    "output.keep_checkpoints": ("save last n steps state", "checkpoints total limit, rolling backup count"),
}
# What has no setting: words, and what stands for it (the page has it in its languages, by the first word)
ELSEWHERE: tuple[tuple[str, str], ...] = (
    ("xformers, sdpa, mem eff attn, flash attention, attention", "Not needed: PyTorch's own attention is used."),
    (
        "prodigy, optimizer type, adamw8bit, 8bit adam, dadaptation, lion, adafactor, came, schedule free, optimizer",
        "Not here yet: AdamW is used, with the settings of the section Optimizer.",
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
        "huber, loss type, l1, smooth l1, mse, mae, debiased estimation loss, scale v pred loss, edm2",
        "The loss is MSE, weighted by min-SNR; others are not here yet.",
    ),
    (
        "multires noise, pyramid noise, ip noise gamma, perturbation noise, multires noise iterations",
        "Not here: noise offset is.",
    ),
    ("ema, ema decay, scale weight norms, max norm", "Not here yet."),
    (
        "flux, sd3, flow matching, discrete flow shift, shift, guidance value, z image, qwen",
        "Not here yet: SD 1.x, 2.x and SDXL are.",
    ),
    (
        "max data loader n workers, persistent workers, num cpu threads per process, dataloader threads",
        "Not needed: images are encoded once, and steps read the cache.",
    ),
    (
        "wandb, tensorboard, logging dir, log with, log tracker",
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
        "random crop, color aug, face crop aug range, crop jitter, hue, rotation",
        "Not here: crops are set image by image on the page Dataset.",
    ),
    (
        "weighted captions, weighted prompts, wildcards, dynamic prompts",
        "Captions are read as plain words; the doctor names prompt syntax.",
    ),
    (
        "torch compile, dynamo backend, deepspeed, fsdp, fused backward pass",
        "Not needed: the layers are fused by themselves.",
    ),
    (
        "stop text encoder training, stop training text encoder after, train text encoder epochs",
        "Not here yet: it learns to the end, at its own rate.",
    ),
    ("validation split, validation set, holdout, validate", "Not here yet."),
    ("textual inversion, embedding, pivotal tuning, additional embeddings", "Not here yet."),
    ("learning strength, strength, rate times alpha", "Learning rate × alpha / rank: shown beside these three."),
)
SEPARATORS = re.compile(r"[^\w×+]+|_+")
NEAREST = 3


@dataclass(frozen=True)
class Found:
    """What a search found: settings, best first; else what stands for the words; else the nearest words there are."""

    places: tuple[str, ...] = ()
    instead: tuple[tuple[str, str], ...] = ()  # first word, and the sentence
    nearest: tuple[str, ...] = ()
    exact: bool = False  # the first setting is called so, here or elsewhere


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
    words = words_of(wanted)
    if not words:
        return Found()
    ranks = {place: _rank(words, phrases) for place, phrases in _phrases(labels or {}).items()}
    places = tuple(sorted((place for place, rank in ranks.items() if rank), key=lambda place: -ranks[place]))
    said = [(_rank(words, _split(theirs)), theirs.partition(",")[0], text) for theirs, text in ELSEWHERE]
    best = max((rank for rank, _, _ in said), default=0)
    instead = tuple((word, text) for rank, word, text in said if rank == best) if best >= BEGINS or not places else ()
    if instead and best == WHOLE:  # beside what is called exactly so, only settings that are, too
        places = tuple(place for place in places if ranks[place] == WHOLE)
    if places or (instead and best):
        return Found(places, instead if best else (), exact=bool(places) and ranks[places[0]] == WHOLE)
    known = {" ".join(words_of(phrase)) for phrase in _every_word(labels or {})}
    return Found(nearest=tuple(get_close_matches(" ".join(words), known, n=NEAREST, cutoff=0.6)))


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
