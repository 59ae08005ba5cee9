"""What goes wrong while a run is trained, and what it warns of."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
from html import unescape
from itertools import count
from types import SimpleNamespace

import psutil
import torch

import trainer.__main__
from failures.book import case
from failures.scene import copied
from trainer.contract import files
from trainer.engine import loop, previews, strength_strip
from trainer.engine.frozen import gradient_checkpointing
from trainer.engine.watch import power
from trainer.planning import memory
from trainer.runs import process

CONSTANT = {"learning_rate": 0.001, "lr_scheduler": "constant", "warmup": 0.0}


def failing(scene, error, after=2):
    """The loop's updates raise this from the third on."""
    plain, number = loop.update, count()

    def update(training, step):
        if next(number) >= after:
            raise error
        return plain(training, step)

    scene.patch.setattr(loop, "update", update)
    return scene.new_run()


def spoilt(scene, calls, place=slice(None)):
    """These calls of the objective give no numbers."""
    plain, number = loop.training_loss, count(1)

    def losses(*given):
        made = plain(*given)
        if next(number) in calls:
            made = made.clone()
            made[place] = float("nan")
        return made

    scene.patch.setattr(loop, "training_loss", losses)


@case("train", "step_left_out", trains=True)
def a_step_whose_loss_is_no_number(scene):
    spoilt(scene, {5})
    return scene.train(scene.new_run(optimizer=CONSTANT), "step_left_out", 0)


@case("train", "went_back", trains=True)
def steps_whose_losses_are_no_numbers(scene):
    spoilt(scene, {5, 6, 7})
    return scene.train(scene.new_run(optimizer=CONSTANT), "went_back", 0)


@case("train", "non_finite_loss", trains=True)
def losses_that_stay_no_numbers(scene):
    spoilt(scene, set(range(5, 100)))
    return scene.train(scene.new_run(optimizer=CONSTANT), "non_finite_loss")


@case("train", "nothing_learned", trains=True)
def captions_that_are_all_dropped_where_the_base_is_kept_without_one(scene):
    changes = {"dataset": {"caption_dropout": 1.0}, "objective": {"keep_uncaptioned": True}}
    return scene.train(scene.new_run(**changes), "nothing_learned")


@case("train", "out_of_memory", trains=True)
def memory_that_runs_out_once(scene):
    plain, calls = loop.update, []

    def short(training, step):
        calls.append(step)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(training, step)

    scene.patch.setattr(loop, "update", short)
    return scene.train(scene.new_run(), "out_of_memory", 0)


@case("train", "out_of_memory", trains=True)
def memory_that_is_never_enough(scene):
    run = failing(scene, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), after=0)
    return scene.train(run, "out_of_memory")


@case("train", "nothing_to_save", trains=True)
def a_saving_without_effect_on_the_model(scene):
    scene.patch.setattr(gradient_checkpointing, "BasicTransformerBlock", type("Unknown", (torch.nn.Module,), {}))
    return scene.train(scene.new_run(model={"gradient_checkpointing": "blocks"}), "nothing_to_save")


@case("train", "may_not_fit", trains=True)
def a_model_that_is_too_large(scene):
    scene.patch.setattr(memory, "knows", lambda *_: True)
    return scene.train(scene.new_run(model={"memory_limit": 0.5}), "may_not_fit", 0)


@case("train", "saves_memory", trains=True)
def a_model_that_just_fits(scene):
    scene.patch.setattr(memory, "knows", lambda *_: True)
    return scene.train(scene.new_run(model={"memory_limit": 0.5}), "saves_memory", 0)


@case("train", "device_lost", trains=True)
def a_graphics_card_that_is_gone(scene):
    error = torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might be …")
    return scene.train(failing(scene, error), "device_lost")


@case("train", "terminated", trains=True)
def a_trainer_that_is_told_to_end(scene):
    plain, number = loop.update, count()

    def update(training, step):
        if next(number) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # the first asks it to stop and save
        return plain(training, step)

    scene.patch.setattr(loop, "update", update)
    return scene.train(scene.new_run(), "terminated")


@case("train", "process_lost", trains=True)
def a_process_of_several_that_is_gone(scene):
    return scene.train(failing(scene, torch.distributed.DistNetworkError("Connection reset by peer")), "process_lost")


@case("train", "computers_apart")
def computers_that_do_not_find_each_other(scene):
    def launch(*_):
        raise RuntimeError(
            "The client socket has timed out after 60000ms while trying to connect to (127.0.0.1, 29500)"
        )

    scene.patch.setattr("torch.distributed.run.run", launch)
    return scene.train(scene.new_run(model={"processes": 2}), "computers_apart")


@case("train", "computers_differ", trains=True)
def computers_that_hold_different_images(scene):
    from trainer.engine.distributed import collectives

    scene.patch.setattr(collectives, "everywhere", lambda _, number: [number, number - 1])
    return scene.train(scene.new_run(), "computers_differ")


@case("train", "resting", trains=True)
def a_battery_that_is_weak(scene):
    charge = iter([9] + [100] * 1000)
    told = lambda: SimpleNamespace(percent=next(charge), power_plugged=False, secsleft=100)  # noqa: E731
    scene.patch.setattr(psutil, "sensors_battery", told, raising=False)
    scene.patch.setattr(psutil, "sensors_temperatures", dict, raising=False)
    scene.patch.setattr(power.shutil, "which", lambda _: None)
    scene.patch.setattr(power, "LOOK_EVERY", 0.0)
    scene.patch.setattr(loop, "REST_SECONDS", 0.0)
    return scene.train(scene.new_run(model={"battery_limit": 10}), "resting", 0)


@case("train", "memory_spills", trains=True)
def steps_that_take_much_longer(scene):
    from trainer.engine import reporting

    scene.patch.setattr(reporting, "nearly_full", lambda _: True)
    scene.patch.setattr("trainer.engine.watch.anomalies.Pace.jumped", lambda *_: (0.8, 4.2))
    return scene.train(scene.new_run(), "memory_spills", 0)


def emptied_at(patch, run, step):
    """The cache is deleted before this step, with nothing of it in memory."""
    from trainer.engine import loop
    from trainer.engine.data import cache

    plain, once = loop.update, iter([step])

    def update(training, number):
        if number == step and next(once, None) is not None:
            shutil.rmtree(run.home.cache)
        return plain(training, number)

    patch.setattr(cache, "KEPT_BYTES", 0)
    patch.setattr(loop, "update", update)


@case("train", "strength_unusual", trains=True)
def a_learning_strength_far_from_the_usual(scene):
    wild = {"model": {"base_model": "pocket"}, "adapter": {"alpha": 256.0}, "optimizer": {"learning_rate": 0.01}}
    return scene.train(scene.new_run(**wild), "strength_unusual", 0)


@case("train", "diverged", trains=True)
def a_training_that_diverges(scene):
    scene.patch.setattr("trainer.engine.watch.anomalies.Yardstick.diverged", lambda *_: (1.13, 0.104))
    return scene.train(scene.new_run(), "diverged", 0)


@case("train", "loss_rises", trains=True)
def losses_that_leave_their_band(scene):
    def left(band, _):
        band.recent = [0.413] * 50
        return 0.182, 0.413

    scene.patch.setattr("trainer.engine.watch.anomalies.Band.left", left)
    return scene.train(scene.new_run(), "loss_rises", 0)


@case("train", "cache_entry_gone", trains=True)
def a_cache_that_is_emptied(scene):
    """The cache is deleted before the second step, when little of it is still in memory."""
    run = scene.new_run()
    emptied_at(scene.patch, run, step=1)
    return scene.train(run, "cache_entry_gone", 0)


@case("train", "time_lost", trains=True)
def a_computer_that_sleeps(scene):
    scene.patch.setattr("trainer.engine.watch.anomalies.Clock.slept", lambda *_: 7.5 * 3600)
    return scene.train(scene.new_run(), "time_lost", 0)


@case("train", "isolated_failure", trains=True)
def a_preview_that_cannot_be_drawn(scene):
    def fails(*_):
        raise RuntimeError("the image has no size.")

    scene.patch.setattr(previews, "png", fails)
    return scene.train(scene.new_run(), "isolated_failure", 0)


@case("train", "fits_only_its_model", trains=True)
def the_built_in_model(scene):
    return scene.train(scene.new_run(model={"base_model": "pocket"}), "fits_only_its_model", 0)


@case("train", "proof_failed", trains=True)
def a_file_that_is_not_what_was_trained(scene):
    from trainer.engine.adapters import lora_file

    hashes = count()
    scene.patch.setattr(lora_file, "body_hash", lambda _: f"{next(hashes)}")
    return scene.train(scene.new_run(), "proof_failed")


@case("pictures", "unreadable_image", trains=True)
def an_image_that_breaks_off_is_left_out(scene):
    folder = scene.images()
    (folder / "image 0.png").write_bytes((folder / "image 0.png").read_bytes()[:60])
    return scene.train(scene.new_run(dataset={"images": str(folder)}), "unreadable_image", 0)


@case("train", "layers_start_fresh", trains=True)
def a_lora_to_go_on_from_that_lacks_layers(scene):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    first = scene.new_run("first")
    scene.quiet(first)
    file = scene.folder / "loras" / "ana.safetensors"
    file.parent.mkdir()
    source = first.path / "bälle.safetensors"
    with safe_open(source, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(source)
    gone = sorted(tensors)[0].partition(".")[0]
    save_file({name: one for name, one in tensors.items() if not name.startswith(f"{gone}.")}, file, metadata)
    return scene.train(scene.new_run(adapter={"start_from": str(file)}), "layers_start_fresh", 0)


@case("runs", "resume_refused", trains=True)
def images_that_changed_since(scene):
    own = copied(scene.images(), scene.folder / "own")
    run = scene.new_run(dataset={"images": str(own)})
    scene.stopped(run)
    (own / "image 0.txt").write_text("another caption")
    return scene.train(run, "resume_refused")


@case("runs", "inputs_missing", trains=True)
def images_on_a_disk_that_is_not_connected(scene):
    disk = copied(scene.images(), scene.folder / "disk")
    run = scene.new_run(dataset={"images": str(disk)})
    scene.stopped(run)
    disk.rename(scene.folder / "elsewhere")
    return scene.console("--resume", run.path.name, "--home", run.home.root)


def stopped_with(scene, change):
    """A run that was stopped, and something done to what its last checkpoint says."""
    run = scene.new_run()
    scene.stopped(run)
    state = max(run.checkpoints.iterdir()) / "state.json"
    state.write_text(change(state.read_text()))
    return run


@case("runs", "damaged_checkpoint", trains=True)
def a_checkpoint_that_is_damaged(scene):
    run = scene.new_run()
    scene.stopped(run)
    (newest,) = run.checkpoints.iterdir()
    shutil.copytree(newest, newest.with_name("000000"))
    (newest / "state.json").write_text("{")
    return scene.train(run, "damaged_checkpoint", 0)


@case("runs", "checkpoints_damaged", trains=True)
def only_checkpoints_that_are_damaged(scene):
    return scene.train(stopped_with(scene, lambda text: text[:9]), "checkpoints_damaged")


@case("runs", "not_ours")
def a_log_that_is_a_link(scene):
    run = scene.new_run()
    letter = scene.folder / "letter.txt"
    letter.write_text("mine")
    run.log_file.symlink_to(letter)
    return scene.console("--resume", run.path.name, "--home", run.home.root)


@case("runs", "file_too_large")
def a_log_of_a_terabyte(scene):
    run = scene.new_run()
    with run.events_file.open("wb") as log:
        log.truncate(2**40)
    return scene.console("--resume", run.path.name, "--home", run.home.root)


@case("runs", "newer_version", trains=True)
def a_checkpoint_of_a_newer_version(scene):
    run = stopped_with(scene, lambda text: json.dumps({"step": json.loads(text)["step"], "format": 99}))
    return scene.train(run, "newer_version")


@case("runs", "run")
def a_strength_strip_of_a_file_that_is_gone(scene):
    from app.live.result import Result

    def draw(run, file):
        with run.log_file.open("a") as log, contextlib.redirect_stderr(log):
            code = strength_strip.main([str(run.path), file])
        return SimpleNamespace(wait=lambda: code)

    scene.patch.setattr(process, "generate_strip", draw)
    run = scene.new_run()
    *_, (_, html) = Result._generate(SimpleNamespace(home=run.home), run.path.name, "ana.safetensors", None)
    message, _, hint = html.partition(">")[2].removesuffix("</div>").partition(". ")
    return scene.seen("run", f"{unescape(message)}.", unescape(hint))


@case("runs", "file_gone", trains=True)
def a_run_that_is_deleted_while_it_is_trained(scene):
    plain, number = loop.update, count()

    def update(training, step):
        if next(number) == 2:
            shutil.rmtree(training.run.path)
        return plain(training, step)

    scene.patch.setattr(loop, "update", update)
    run = scene.new_run()
    seen = scene.deleted(run)
    assert not run.checkpoints.exists(), "nothing is made anew of what was deleted"
    return seen


@case("install", "disk_full", trains=True)
def a_disk_that_fills_up(scene):
    plain, number = os.fsync, count()

    def fsync(handle):
        if next(number) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(handle)

    scene.patch.setattr(files.os, "fsync", fsync)
    scene.patch.setattr(files, "_free_bytes", lambda _: 512)
    return scene.train(scene.new_run(dataset={"views": 20}, output={"checkpoint_every": 2}), "disk_full")


@case("install", "broken_install", trains=True)
def a_library_that_cannot_be_loaded(scene):
    def load():
        raise ImportError("libcudart.so.12: cannot open shared object file: No such file or directory")

    scene.patch.setattr(trainer.__main__, "_load_libraries", load)
    return scene.train(scene.new_run(), "broken_install")


@case("install", "unexpected", trains=True)
def a_fault_of_the_program(scene):
    return scene.train(failing(scene, ZeroDivisionError("float division by zero")), "unexpected")
