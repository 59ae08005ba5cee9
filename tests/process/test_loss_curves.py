"""Whatever saves time or memory, pocket learns along the curve of the plain float32 loop: 50 steps, mean deviation.

`python -m pytest -n0 -s -m slow tests/process/test_loss_curves.py` prints the figures of the documents.
"""

from statistics import fmean

import pytest
import tiny
import torch
import warm

from trainer.contract.settings.config import validated
from trainer.dataset.scan import images_of
from trainer.dataset.views import plan
from trainer.engine.adapters.lora import attach
from trainer.engine.data.batches import TextStates, encode_dataset, samples_of_step
from trainer.engine.data.cache import TensorCache
from trainer.engine.objectives import Batch, make_schedule, sample_rng, training_loss

STEPS = 50
SETTINGS = {
    "model": {"base_model": "pocket", "precision": "fp32", "gradient_checkpointing": "none", "quantize": "none"},
    "dataset": {
        "images": "assets/demo/style/train",
        "resolution": 128,
        "batch_size": 2,
        "views": 100,
        "max_total_views": 2 * STEPS,
        "caption_dropout": 0.15,
    },
    "adapter": {"rank": 16, "alpha": 16.0},
    "optimizer": {"learning_rate": 2e-3, "lr_scheduler": "constant", "warmup": 0.0},
    "preview": {"steps": 1, "every": 1000},
    "output": {"files": 1, "checkpoint_every": 1000},
}


def silent(_done, _total):
    pass


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The losses of a loop without any of our savings: diffusers, peft and PyTorch's own AdamW in float32."""
    config = validated(SETTINGS)
    family = tiny.load("pocket", **{name: part for name, part in SETTINGS.items() if name != "model"})
    items, _ = images_of(config.dataset)
    made, seed = plan(len(items), config.dataset), config.model.seed
    cache = TensorCache(tmp_path_factory.mktemp("cache"))
    data = encode_dataset(items, family, config.dataset, dtype=torch.float32, cache=cache, progress=silent)
    text = TextStates(family, trained=False)
    text.learn([*(item.caption for item in items), ""], torch.float32, cache, silent)
    adapter = attach(family, config.adapter, seed)
    schedule = make_schedule(family.noise, config.objective)
    weights = adapter.parameters()
    optimizer = torch.optim.AdamW(
        weights, lr=config.optimizer.learning_rate, weight_decay=config.optimizer.weight_decay
    )
    losses = []
    for step in range(STEPS):
        samples = samples_of_step(step, made, data, config.dataset, seed)
        encoded = [data.posteriors[sample.item, sample.mirrored] for sample in samples]
        batch = Batch(
            torch.stack([one.mean for one in encoded]),
            torch.stack([one.std for one in encoded]),
            text([sample.caption for sample in samples], torch.device("cpu")),
            torch.tensor([not sample.caption for sample in samples]),
        )
        rng = [sample_rng(seed, step, sample.index) for sample in samples]
        loss = training_loss(family.predict, family.predict, batch, schedule, rng).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Gives the losses of a real run with these model settings."""
    from trainer.contract.home import Home
    from trainer.runs.folder import RunFolder

    home, made = Home(tmp_path_factory.mktemp("home")), {}

    def losses(**model):
        key = tuple(sorted(model.items()))
        if key not in made:
            run = RunFolder.create(home, validated(SETTINGS | {"model": SETTINGS["model"] | model}))
            assert warm.start(run).wait(3600) == 0  # accelerate knows one precision to a process
            made[key] = [step.loss for step in run.view().steps]
            assert len(made[key]) == STEPS
        return made[key]

    return losses


def deviation(ours, theirs):
    return fmean(abs(one - other) / other for one, other in zip(ours, theirs, strict=True))


LEVERS = {
    "float32": ({}, 0.001),
    "bf16": ({"precision": "bf16"}, 0.005),
    "8 bits": ({"precision": "bf16", "quantize": "8bit"}, 0.01),
    "4 bits": ({"precision": "bf16", "quantize": "4bit"}, 0.03),
}


@pytest.mark.slow
@pytest.mark.parametrize("lever", LEVERS)
def test_a_lever_hardly_changes_the_curve(lever, plain, trained):
    model, most = LEVERS[lever]
    off = deviation(trained(**model), plain)
    print(f"\n{lever}: {off:.2%}")  # noqa: T201 - for the documents
    assert off <= most


@pytest.mark.slow
@pytest.mark.parametrize("level", ["feed_forward", "blocks", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_level_of_recomputation_does_not_change_it_at_all(level, precision, trained):
    assert trained(precision=precision, gradient_checkpointing=level) == trained(precision=precision)
