"""What the header of a LoRA file tells whoever gets it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainer.contract.settings.config import validated
from trainer.dataset.buckets import Size
from trainer.dataset.captions import Item
from trainer.engine.adapters.metadata import TrainingFacts, file_metadata
from trainer.engine.families.labels import LABELS

CAPTIONS = [
    "mira, smile, red hat, Mira Petersen stands before her house at Hauptstr. 5",
    "mira, smile, red hat, mira@example.org",
    "smile, beach",
]


def facts(**output):
    """Of a training on three images with these captions."""
    settings = {"dataset": {"images": "/home/ana/photos", "trigger_word": "mira"}, "output": {"name": "x", **output}}
    items = [Item(Path(f"/home/ana/photos/{n}.png"), said, 64, 64, f"{n}.png") for n, said in enumerate(CAPTIONS)]
    plan = SimpleNamespace(images=3, sizes=1, effective_batch=1, views_per_image=1.0, steps=3, passes=lambda _step: 1.0)
    return TrainingFacts(
        config=validated(settings),
        plan=plan,
        data=SimpleNamespace(items=items, buckets=[Size(64, 64)] * 3, class_images=None),
        labels=LABELS["sd15", "epsilon"],
        clip_skip=0,
        schedule=SimpleNamespace(alphas_cumprod=torch.tensor([0.5]), prediction="epsilon"),
        precision="fp32",
        started=0.0,
        step=3,
    )


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ({}, {"mira": 3, "red hat": 2}),
        ({"tags": "none"}, {}),
    ],
)
def test_no_sentence_name_or_address_of_the_captions_is_in_it(output, told):
    metadata = file_metadata(facts(**output))
    assert json.loads(metadata["ss_tag_frequency"]) == {"1_x": told}
    text = json.dumps(metadata)
    assert not [word for word in ("Petersen", "Hauptstr", "example.org", "/home/ana", "beach") if word in text]


def test_whole_captions_are_told_only_where_the_settings_say_so():
    assert "Petersen" in json.dumps(file_metadata(facts(tags="all"))).title()
