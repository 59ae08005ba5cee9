"""Files of other programs that are given as settings: which program's they are, by words that only it writes.

Names of settings are looked for in the text, whatever its format; nothing is parsed, so no file is too deep or too odd.
"""

import re
from typing import NamedTuple

from trainer.contract.errors import InvalidSettings
from trainer.contract.wording import setting

SHOWN = 4  # names of settings that a message tells

# Of each program: sets of names, of which one must be there whole. What shares names with another comes first
PROGRAMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a workflow of ComfyUI", ("last_node_id links", "class_type inputs")),
    ("a settings file of SimpleTuner", ("data_backend_config", "instance_data_dir caption_strategy")),
    ("a settings file of OneTrainer", ("training_method model_type", "base_model_name concept_file_name")),
    ("a settings file of ai-toolkit", ("job config process", "job config name")),
    ("a settings file of diffusion-pipe", ("micro_batch_size_per_gpu", "pipeline_stages", "directory resolutions")),
    ("a settings file of lora-scripts", ("model_train_type", "metadata data author")),
    ("a settings file of kohya_ss", ("LoRA_type", "train_data_dir max_resolution", "stop_text_encoder_training epoch")),
    ("a data set file of sd-scripts (kohya)", ("datasets subsets", "datasets.subsets", "image_dir num_repeats")),
    (
        "a settings file of sd-scripts (kohya)",
        ("network_module", "network_dim", "pretrained_model_name_or_path", "train_data_dir"),
    ),
    ("a settings file of PEFT", ("peft_type",)),
    ("a file of a model of diffusers", ("_class_name", "_diffusers_version")),
    ("a file of a model of transformers", ("architectures model_type",)),
    ("a settings file of Accelerate", ("compute_environment distributed_type", "distributed_type mixed_precision")),
    (
        "a settings file of the AUTOMATIC1111 WebUI",
        ("sd_model_checkpoint", "samples_save", "txt2img/Prompt/value", "name,prompt,negative_prompt"),
    ),
)
# Names before : and =, or in brackets: of JSON and YAML, TOML and .env, and the first line of a table
NAMES = re.compile(
    r"""["'](?:--)?([\w./ -]{1,80})["']\s*[:=]|^[ \t-]*([A-Za-z_][\w.-]{0,80})\s*[:=]|^\s*\[{1,2}([\w.-]{1,80})\]"""
    r"|\A(\w+,\w+,\w+)",
    re.MULTILINE,
)
JSON = re.compile(r"\s*(?:\{|\[\s*\{)")
# What a file begins with that is no text
KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"RIFF", "an image"),
    (b"PK\x03\x04", "a packed archive or a .ckpt file"),
    (b"GGUF", "a model file (.gguf)"),
    (b"SQLite format 3", "a data base"),
)
HEADER_BYTES = 8  # a .safetensors file says in as many how long its header is, which is JSON
START = "Start from a preset instead"
CHOOSE = (
    f"Settings of other programs are not imported. {START}, and set what this file says: "
    f"{setting('dataset.images')}, {setting('model.base_model')}, {setting('output.name')}, and what else you need."
)
PLAIN = f"{START}, or give a TOML file with settings of Atelier."


class ForeignFile(InvalidSettings):
    """A file given as settings is another program's, or none of settings at all."""

    code = "foreign_file"
    what = "{path} is {kind}, not a settings file of Atelier{seen}."
    remedy = "{helps}"


class Kind(NamedTuple):
    """What a file is, for `ForeignFile`."""

    kind: str
    seen: str
    helps: str


def kind_of_bytes(content: bytes) -> Kind | None:
    """Returns what a file is that begins like this and is no text, None if it may be text."""
    if content[HEADER_BYTES : HEADER_BYTES + 1] == b"{" and b"\0" in content[:HEADER_BYTES]:
        if b"lora" in content.lower() and b"model.diffusion_model." not in content:
            helps = f"To continue its training: {setting('adapter.start_from')}. {PLAIN}"
            return Kind("a LoRA file (.safetensors)", "", helps)
        return Kind("a model file (.safetensors)", "", f"As the base model: {setting('model.base_model')}. {PLAIN}")
    known = next((kind for start, kind in KINDS if content.startswith(start)), None)
    if known is None and b"\0" in content:
        known = "a binary file"
    return Kind(known, "", PLAIN) if known else None


def kind_of_text(text: str) -> Kind | None:
    """Returns which program's file this text is, None if no program is recognized."""
    names = {next(filter(None, found.groups())) for found in NAMES.finditer(text)}
    for kind, marks in PROGRAMS:
        known = [name for mark in marks if names.issuperset(mark.split()) for name in mark.split()]
        if known:
            shown = ", ".join(dict.fromkeys(known[:SHOWN]))
            return Kind(kind, f" (it has {shown})", CHOOSE)
    return Kind("a JSON file", "", PLAIN) if JSON.match(text) else None
