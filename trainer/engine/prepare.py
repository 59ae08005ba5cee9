"""A run made ready: family loaded, images and captions encoded, adapter attached, state resumed."""

import time
from collections.abc import Sequence

import torch

from trainer.contract import events
from trainer.contract.events import EventLog, Warned
from trainer.contract.settings.config import TrainConfig
from trainer.contract.settings.model import Checkpointing
from trainer.contract.wording import setting
from trainer.dataset.captions import Item, captions_of, first_caption
from trainer.dataset.class_images import class_images_of
from trainer.dataset.problems import unreadable
from trainer.dataset.scan import images_of
from trainer.dataset.views import plan
from trainer.doctor.masks import mask_problems
from trainer.engine.adapters.fused import fuse, fuse_entries
from trainer.engine.adapters.lora import Adapter, attach
from trainer.engine.adapters.lora_file import put_into
from trainer.engine.checkpoints import load_checkpoint
from trainer.engine.data.batches import TextStates, encode_dataset
from trainer.engine.data.cache import TensorCache
from trainer.engine.data.encoding import Progress
from trainer.engine.data.prior import ClassImages, class_prompts
from trainer.engine.device import DTYPES, free_bytes, make_accelerator
from trainer.engine.distributed.collectives import check_alike, everywhere
from trainer.engine.errors import NothingToSave
from trainer.engine.families.base import Family
from trainer.engine.families.load import chosen_model, load_family
from trainer.engine.families.read_ahead import ReadAhead
from trainer.engine.fingerprint import inputs_of
from trainer.engine.frozen.gradient_checkpointing import apply_level
from trainer.engine.frozen.lean_layers import free_convolutions, fuse_norms
from trainer.engine.frozen.packing import PackedConv2d, lay_out
from trainer.engine.objectives import make_schedule
from trainer.engine.optim import make_optimizer
from trainer.engine.outputs import state_of
from trainer.engine.previews import PreviewBoard, Renderer
from trainer.engine.reporting import Preparing, report_problems, report_start
from trainer.engine.savings import Ladder
from trainer.engine.state import Training
from trainer.models.lora_header import check_start
from trainer.models.lora_names import trained_components
from trainer.planning.disk import bytes_used, check_space, run_bytes
from trainer.planning.preview_schedule import preview_prompts
from trainer.planning.strength import strength_problems
from trainer.runs.folder import RunFolder
from trainer.runs.moved import require


def prepare(run: RunFolder, log: EventLog, ladder: Ladder) -> Training:
    """Load the base model, encode data and captions once, attach the adapter."""
    started = time.time()
    config = run.config()
    items = _images(run, config, log)
    accelerator, dtype = make_accelerator(config.model)
    room = min(everywhere(accelerator, free_bytes(accelerator.device)))  # all of them save the same
    report = Preparing(run, log, listens=accelerator.num_processes == 1).report
    report("load")(0, 1)
    with accelerator.local_main_process_first():  # downloaded by the one that reports it
        model = chosen_model(config, report("download"))
    config = ladder.fit(model, accelerator.device, dtype, room, log)
    family = load_family(config, accelerator.device, dtype)
    schedule = make_schedule(family.noise, config.objective)

    class_items = class_images_of(config.dataset, config.model.seed)
    prior_prompts = class_prompts(items, config.dataset, config.model.seed)
    captions = [caption for item in items for caption in captions_of(item, config.dataset, config.model.seed)]
    prompts = preview_prompts(config, [first_caption(item, config.dataset, config.model.seed) for item in items])
    progress, writes = report("encode"), accelerator.is_local_main_process
    # The other processes then read what the first has made
    with accelerator.local_main_process_first(), ReadAhead(family.unet_files) as ahead:
        cache = TensorCache(run.home.cache / family.spec.name, writes, missed=ahead.start)
        known = [*captions, *prompts, *prior_prompts, *(item.caption for item in class_items), ""]
        # Before the images, which then have the text encoders' memory
        text = learn_text(family, config, known, dtype=dtype, cache=cache, progress=progress)
        data = encode_dataset(
            items, family, config.dataset, dtype=dtype, cache=cache, progress=progress, ready=ahead.finish
        )
        if ladder.tiled:
            family.decode_in_tiles()
        reports = {"generating": report("protect"), "encoding": progress}
        prior = ClassImages(config, family, text, accelerator)
        data = prior.add(data, class_items, prior_prompts, dtype=dtype, cache=cache, **reports)
        put_away(family, config)
        cache.trim(config.dataset.cache_limit)
    report_problems(log, unreadable(data.broken))
    weights = [item.weight for item in data.items[:: 1 + len(config.dataset.further_resolutions)]]
    made = plan(len(weights), config.dataset, weights)
    adapter = add_adapter(family, config)
    trained = sum(parameter.numel() for parameter in adapter.parameters())
    check_space(run.path, run_bytes(config, trained, made.steps, len(prompts)) - bytes_used(run.path))
    board = PreviewBoard(run, log, Renderer(config, family, text, prompts, accelerator))
    return Training(
        run=run,
        log=log,
        config=config,
        accelerator=accelerator,
        precision=next(name for name, value in DTYPES.items() if value == dtype),
        family=family,
        data=data,
        inputs=inputs_of(config, model.path, data),
        text=text,
        board=board,
        plan=made,
        schedule=schedule,
        adapter=adapter,
        optimizer=accelerator.prepare(make_optimizer(adapter, config.optimizer)),
        started=started,
    )


def _images(run: RunFolder, config: TrainConfig, log: EventLog) -> list[Item]:
    """The run's images; what is noticed about them and the settings is logged."""
    if run.checkpoints.exists():  # before, whoever named them is told what is wrong with each
        require(config, run.path.name)
    items, problems = images_of(config.dataset)
    report_problems(log, [*strength_problems(config), *problems, *mask_problems(items, config, run.home)])
    return items


def resume(training: Training) -> int:
    """Continue from the newest checkpoint, if there is one, and log that the run starts; returns the first step."""
    expected = state_of(training)
    check_alike(training.accelerator, "images, masks or captions (by digest)", int(expected.dataset[:8], 16))
    state = load_checkpoint(training.run.checkpoints, training.adapter, training.optimizer, expected, training.log)
    check_alike(training.accelerator, "checkpoints (by step)", state.step if state else 0)
    if state is not None:
        training.step = training.saved = state.step
        if not training.recovery.went_back:
            training.recovery.rate, training.recovery.in_a_row = state.rate, state.in_a_row
        if training.accelerator.scaler is not None and state.gradient_scaler is not None:
            training.accelerator.scaler.load_state_dict(state.gradient_scaler)
    elif training.config.adapter.start_from:
        start_from(training)
    report_start(training)
    if training.family.labels.note and training.step == 0:
        note = training.family.labels.note
        training.log.write(events.Warned(code="fits_only_its_model", message=note, hint="Good for trying things out."))
    training.log.write(events.Phase(name="train", done=training.step, total=training.plan.steps))
    return training.step


def learn_text(
    family: Family,
    config: TrainConfig,
    captions: Sequence[str],
    *,
    dtype: torch.dtype,
    cache: TensorCache,
    progress: Progress,
) -> TextStates:
    """The captions and the negative prompt as conditioning; the encoders are then put away, unless trained."""
    trained = len(trained_components(config.adapter)) > 1
    text = TextStates(family, trained)
    text.learn([*captions, config.preview.negative_prompt], dtype, cache, progress)
    put_away(family, config)
    return text


def put_away(family: Family, config: TrainConfig) -> None:
    """Give up the encoders' memory, but for text encoders that are trained."""
    family.release_encoders(keep_text=len(trained_components(config.adapter)) > 1)


def add_adapter(family: Family, config: TrainConfig) -> Adapter:
    """A fresh adapter, and the model around it laid out for speed and as little memory as the settings say."""
    adapter, unet = attach(family, config.adapter, config.model.seed), family.component("unet")
    lay_out(unet)
    requested = config.model.gradient_checkpointing
    keep_less(family, adapter, config.adapter.dropout, "none" if requested == "auto" else requested)
    return adapter


def keep_less(family: Family, adapter: Adapter, dropout: float, level: Checkpointing) -> None:
    """Let the UNet keep for the backward pass only what it must, and turn on gradient checkpointing at this level.

    Raises:
        NothingToSave: One of these finds nothing in the model to act on.
    """
    unet = family.component("unet")
    packed = sum(isinstance(module, PackedConv2d) for module in unet.modules())
    found = {"norms": fuse_norms(unet), "convolutions": packed + free_convolutions(unet)}
    fuse(family, adapter, dropout)  # in float32 it has nothing to do
    found["transformer blocks"] = fuse_entries(unet)
    for parts, count in found.items():
        if not count:
            another = f"another architecture with {setting('model.base_model')}"
            raise NothingToSave(saving="Keeping fewer activations", parts=f"{parts} of a known kind", instead=another)
    apply_level(unet, level)


def start_from(training: Training) -> None:
    """Load the weights of the LoRA file to continue from into a fresh adapter; layers that it lacks are logged.

    Raises:
        LoraRefused: The file is missing, damaged, of another kind, or does not fit the base model.
        InvalidSettings: It would fit with other settings.
    """
    adapter = training.adapter
    start = check_start(training.config.adapter, chosen_model(training.config))  # it may have changed since
    lacking = put_into(adapter, start.file, training.family.kohya_name) if start else []
    if start and lacking:
        training.log.write(
            Warned(
                code="layers_start_fresh",
                message=f"{start.file.path.name} lacks {len(lacking)} of {len(adapter.layers)} layers, "
                f"first {lacking[0]}.",
                hint="These start fresh.",
            )
        )
