"""What a LoRA file says of itself: kohya's ss_* keys and ModelSpec 1.0.1, as strings.

Private by default: names, numbers and shared tags (`output.tags`), never a sentence, a path, a user or a host.
"""

import json
import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePath

from trainer.contract.settings.config import TrainConfig
from trainer.dataset.captions import first_caption, told_tags
from trainer.dataset.views import Plan
from trainer.engine.data.batches import EncodedDataset
from trainer.engine.families.base import ExportLabels
from trainer.engine.objectives import NoiseSchedule
from trainer.models.lora_names import trained_components

MOST_TAGS = 1000  # readers give up on headers above 1 MiB


@dataclass(frozen=True)
class TrainingFacts:
    """What the metadata is made from; times are Unix seconds, `step` updates are done."""

    config: TrainConfig
    plan: Plan
    data: EncodedDataset
    labels: ExportLabels
    clip_skip: int
    schedule: NoiseSchedule
    precision: str
    started: float
    step: int


def file_metadata(facts: TrainingFacts) -> dict[str, str]:
    """The header's strings, without hashes."""
    return {"format": "pt", **_kohya(facts), **_modelspec(facts)}


def _kohya(facts: TrainingFacts) -> dict[str, str]:
    """sd-scripts' keys, in the spelling its readers expect: numbers by str(), structures by json.dumps."""
    config, plan, data = facts.config, facts.plan, facts.data
    name = config.output.name
    folder = f"1_{name}"  # stands for the image folder, whose real name is private
    captions = [first_caption(item, config.dataset, config.model.seed) for item in data.items[:: plan.sizes]]
    reg_images = len(data.class_images.items) if data.class_images else 0
    told = told_tags(captions, _triggers(config), config.output.tags)
    resolution = config.dataset.resolution
    text_rate = config.optimizer.text_learning_rate if len(trained_components(config.adapter)) > 1 else None
    values: dict[str, object] = {
        "network_module": "networks.lora",
        "network_dim": config.adapter.rank,
        "network_alpha": config.adapter.alpha,
        "network_dropout": config.adapter.dropout or None,
        "network_args": json.dumps({}),
        "base_model_version": facts.labels.base_model_version,
        "v2": facts.labels.client_version == "SD2",
        "output_name": name,
        "sd_model_name": PurePath(config.model.base_model).name,
        "tag_frequency": json.dumps({folder: dict(list(told.items())[:MOST_TAGS])}, ensure_ascii=False),
        "dataset_dirs": json.dumps({folder: {"n_repeats": 1, "img_count": plan.images}}, ensure_ascii=False),
        "reg_dataset_dirs": json.dumps({"base": {"n_repeats": 1, "img_count": reg_images}} if reg_images else {}),
        "bucket_info": json.dumps(_bucket_info(data)),
        "num_train_images": plan.images,
        "num_reg_images": reg_images,
        "num_batches_per_epoch": math.ceil(plan.images / plan.effective_batch),
        "num_epochs": math.ceil(plan.views_per_image),
        "epoch": math.ceil(plan.passes(facts.step)),
        "steps": facts.step,
        "max_train_steps": plan.steps,
        "batch_size_per_device": config.dataset.batch_size,
        "gradient_accumulation_steps": config.dataset.accumulation,
        "gradient_checkpointing": config.model.gradient_checkpointing != "none",
        "resolution": f"({resolution}, {resolution})",
        "learning_rate": config.optimizer.learning_rate,
        "unet_lr": config.optimizer.learning_rate,
        "text_encoder_lr": text_rate,
        "lr_scheduler": config.optimizer.lr_scheduler,
        "lr_warmup_steps": round(config.optimizer.warmup * plan.steps),
        "optimizer": "torch.optim.AdamW",
        "max_grad_norm": config.optimizer.clip_norm,
        "seed": config.model.seed,
        "mixed_precision": {"fp32": "no"}.get(facts.precision, facts.precision),
        "clip_skip": facts.clip_skip or None,
        "max_token_length": config.dataset.caption_tokens,
        "vae_name": PurePath(config.model.vae).name or None,
        "min_snr_gamma": config.objective.min_snr_gamma or None,
        "noise_offset": config.objective.noise_offset or None,
        "zero_terminal_snr": bool(facts.schedule.alphas_cumprod[-1] == 0),
        "caption_dropout_rate": config.dataset.caption_dropout,
        "shuffle_caption": config.dataset.shuffle_tags,
        "keep_tokens": config.dataset.keep_tags,
        "flip_aug": config.dataset.flip,
        "training_started_at": facts.started,
        "training_finished_at": time.time(),
        "training_comment": _comment(facts),
    }
    return {f"ss_{key}": str(value) for key, value in values.items()}


def _comment(facts: TrainingFacts) -> str:
    """What the file fits or how it was made, and the name of the LoRA file that the training continued from."""
    made = facts.labels.note or f"Trained with Atelier, preset {facts.config.preset}"
    start = PurePath(facts.config.adapter.start_from).name
    return f"{made}; continued from {start}" if start else made


def _modelspec(facts: TrainingFacts) -> dict[str, str]:
    """ModelSpec 1.0.1, https://github.com/Stability-AI/ModelSpec."""
    config = facts.config
    resolution = config.dataset.resolution
    values = {
        "sai_model_spec": "1.0.1",
        "architecture": facts.labels.architecture,
        "implementation": facts.labels.implementation,
        "title": config.output.name,
        "resolution": f"{resolution}x{resolution}",
        "date": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(facts.started)),
        "prediction_type": "v" if facts.schedule.prediction == "v_prediction" else "epsilon",
    }
    if facts.labels.note:
        values["description"] = facts.labels.note
    triggers = _triggers(config)
    if triggers:
        values["trigger_phrase"] = ", ".join(triggers)
    return {f"modelspec.{key}": value for key, value in values.items()}


def _triggers(config: TrainConfig) -> list[str]:
    """The trigger words of all folders."""
    rules = [config.dataset.of_folder(number) for number in range(1 + len(config.dataset.concepts))]
    return list(dict.fromkeys(one.trigger_word for one in rules if one.trigger_word))


def _bucket_info(data: EncodedDataset) -> dict[str, object]:
    counts = Counter(data.buckets)
    sizes = sorted(counts, key=lambda size: (size.width, size.height))
    entries = {str(i): {"resolution": [size.width, size.height], "count": counts[size]} for i, size in enumerate(sizes)}
    errors = [
        abs(item.width / item.height - size.width / size.height)
        for item, size in zip(data.items, data.buckets, strict=True)
    ]
    return {"buckets": entries, "mean_img_ar_error": sum(errors) / len(errors)}
