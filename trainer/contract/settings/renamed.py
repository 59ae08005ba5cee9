"""Settings under the names that earlier versions gave them: in TOML files, flags, the API and runs to be resumed."""

from __future__ import annotations

from typing import Any

RENAMED = {
    "dataset.protect": "dataset.prior_preservation",
    "dataset.protect_prompt": "dataset.class_prompt",
    "dataset.protect_pictures": "dataset.class_images",
    "dataset.protect_share": "dataset.class_share",
    "model.checkpointing": "model.gradient_checkpointing",
    "model.stream": "model.offload",
    "optimizer.schedule": "optimizer.lr_scheduler",
}
GONE = {"objective.mask_floor"}  # masked-out areas once learned a little


def renamed(values: dict[str, Any]) -> dict[str, Any]:
    """Values nested by section, each under its name of today; where both names are given, today's counts."""
    made = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for old, new in [*RENAMED.items(), *((name, "") for name in GONE)]:
        section, name = old.split(".")
        if not isinstance(made.get(section), dict) or name not in made[section]:
            continue
        value = made[section].pop(name)
        if new:
            made[section].setdefault(new.split(".")[1], value)
    model = made.get("model")
    if isinstance(model, dict) and isinstance(model.get("gradient_checkpointing"), bool):  # a switch, before the levels
        model["gradient_checkpointing"] = "full" if model["gradient_checkpointing"] else "none"
    return made
