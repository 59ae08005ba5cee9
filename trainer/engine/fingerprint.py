"""What a run is made from, by name, so that a resumed run can say what has changed since it began."""

import hashlib
import os
from pathlib import Path

from trainer.contract.settings.config import TrainConfig
from trainer.dataset.problems import listed
from trainer.engine.data.batches import EncodedDataset
from trainer.engine.digests import digest
from trainer.engine.families.parts import all_weight_files

Inputs = dict[
    str, dict[str, str]
]  # "picture": {"ana.png": its digest, …}, "caption": …, "setting": {"model.seed": "42"}
SHORT = 16  # hex digits of a digest: enough to see a change
SAMPLES, SAMPLE_BYTES = 256, 4096
KINDS = {"picture": "", "caption": "the caption of ", "mask": "the mask of ", "cut": "size, cut or weight of "}


def inputs_of(config: TrainConfig, base_model: Path, data: EncodedDataset) -> Inputs:
    """All that decides what the run learns, except settings that may change on resume."""
    vae = all_weight_files(Path(config.model.vae).expanduser()) if config.model.vae else []
    files = all_weight_files(base_model) + vae
    settings = {f"adapter.{name}": value for name, value in config.adapter if name != "start_from"}
    settings |= {"model.seed": config.model.seed, "model.clip_skip": config.model.clip_skip}
    return {
        **_images(data),
        "model": {"the base model": digest(*(sampled(file) for file in files))[:SHORT]},
        "setting": {name: str(value) for name, value in settings.items()},
    }


def sampled(file: Path) -> str:
    """A digest of a large file's size and of some of its bytes, evenly spread: other weights differ everywhere."""
    size = file.stat().st_size
    seen = hashlib.sha256(str(size).encode())
    with file.open("rb") as weights:
        for number in range(SAMPLES):
            weights.seek(size * number // SAMPLES)
            seen.update(weights.read(SAMPLE_BYTES))
    return seen.hexdigest()


def changes(before: Inputs, now: Inputs) -> list[str]:
    """Returns what has changed, in words; of many files the first is named."""
    there, here = before.get("picture", {}).keys(), now.get("picture", {}).keys()
    changed = [_changed("", there - here, "gone"), _changed("", here - there, "new")]
    for kind, words in KINDS.items():
        names = before.get(kind, {}).keys() | now.get(kind, {}).keys()
        differ = {name for name in names if before.get(kind, {}).get(name) != now.get(kind, {}).get(name)}
        changed.append(_changed(words, differ & there & here, "changed"))
    if before.get("model") != now.get("model"):
        changed.append("the base model changed")
    old, new = before.get("setting", {}), now.get("setting", {})
    changed += [f"{name} was {old[name]} and is {new[name]}" for name in old if name in new and old[name] != new[name]]
    return [one for one in changed if one]


def _images(data: EncodedDataset) -> Inputs:
    """Digests of each image, its captions, its mask, and of how it is cut and weighed; together, of all its sizes."""
    made: Inputs = {kind: {} for kind in KINDS}
    for item, crop, image, mask in data.given():
        name = f"{item.name} (concept {item.concept})" if item.concept else item.name
        parts = {"picture": image, "caption": digest(item.caption, *item.others), "mask": mask or ""}
        for kind, seen in (parts | {"cut": digest(crop, item.weight)}).items():
            earlier = made[kind].get(name)  # at another of its sizes
            made[kind][name] = (digest(earlier, seen) if earlier else seen)[:SHORT]
    return made


def _changed(what: str, names: set[str], how: str) -> str:
    """Returns a phrase such as "the caption of a.png and 3 more changed", empty without names."""
    if not names:
        return ""
    words = listed([Path(os.fsdecode(name)) for name in sorted(names)])
    verb = how if how == "changed" else f"{'is' if len(names) == 1 else 'are'} {how}"
    return f"{what}{words} {verb}"
