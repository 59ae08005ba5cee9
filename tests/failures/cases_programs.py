"""What goes wrong with the program, its disk, settings, runs, automatic captions and the page's server."""

from __future__ import annotations

import errno
import shutil
import socket
from collections import namedtuple
from functools import partial
from types import SimpleNamespace

import headers
import psutil

import app.ui
from failures.book import case
from trainer.captioning import catalogue, jobs
from trainer.contract.settings.config import validated
from trainer.projects.project import Project
from trainer.runs import process
from trainer.runs.folder import RunFolder


@case("install", "not_allowed")
def a_home_that_may_not_be_written(scene):
    with scene.refusing(errno.EACCES, "Permission denied"):
        return scene.started()


@case("install", "read_only")
def a_home_on_a_disk_that_is_read_only(scene):
    with scene.refusing(errno.EROFS, "Read-only file system"):
        return scene.started()


@case("install", "name_too_long")
def a_home_with_too_long_a_name(scene):
    home = scene.home.root / ("long" * 100)
    return scene.console("--preset", "pocket-style", "--home", home, "--images", scene.images())


@case("install", "in_the_way")
def a_file_in_the_place_of_the_home(scene):
    scene.home.root.touch()
    return scene.started()


@case("install", "disk_gone")
def a_home_on_a_disk_that_was_pulled_out(scene):
    with scene.refusing(errno.EIO, "Input/output error"):
        return scene.started()


@case("install", "too_many_files")
def too_many_open_files(scene):
    with scene.refusing(errno.EMFILE, "Too many open files"):
        return scene.started()


@case("install", "system_refused")
def a_refusal_that_is_rare(scene):
    with scene.refusing(errno.EBUSY, "Device or resource busy"):
        return scene.started()


@case("install", "disk_full")
def a_disk_without_room_for_a_run(scene):
    with scene.refusing(errno.ENOSPC, "No space left on device"):
        return scene.started()


@case("install", "disk_short")
def a_disk_with_too_little_room_for_all_of_a_run(scene):
    usage = namedtuple("usage", "total used free")
    scene.patch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    scene.patch.setattr("trainer.planning.memory.knows", lambda *_: True)
    base = headers.write(scene.folder / "models" / "base.safetensors", headers.sd15())
    return scene.refused(preset="sd15-style", model__base_model=base)


@case("settings", "unknown_preset")
def a_preset_that_is_not_there(scene):
    scene.patch.setattr("trainer.contract.presets.FOLDER", scene.folder / "presets")
    scene.patch.setattr("trainer.console.flags.FOLDER", scene.folder / "presets")
    scene.patch.setattr("app.desk.presets.FOLDER", scene.folder / "presets")
    scene.home.presets.mkdir(parents=True)
    (scene.home.presets / "oil.toml").write_text('intent = "Oil."\n')
    return scene.refused(preset="oli")


@case("settings", "without_effect")
def a_setting_that_changes_nothing(scene):
    return scene.noted("without_effect", "--dataset.keep_tags", 3)


@case("settings", "invalid_settings")
def no_preset(scene):
    return scene.console("--images", scene.images())


@case("settings", "invalid_settings")
def no_image_folder(scene):
    return scene.refused(dataset__images="")


@case("settings", "invalid_settings")
def a_web_address_in_the_place_of_the_image_folder(scene):
    return scene.refused(dataset__images="https://example.org/photos")


@case("settings", "invalid_settings")
def an_address_on_the_network_in_the_place_of_the_image_folder(scene):
    return scene.refused(dataset__images="smb://nas/photos")


@case("settings", "invalid_settings")
def a_path_of_windows_on_another_system(scene):
    return scene.refused(dataset__images=r"D:\photos\ana")


@case("settings", "invalid_settings")
def a_flag_that_is_not_there(scene):
    return scene.check("--adapter.rnak", "16")


@case("settings", "invalid_settings")
def a_value_out_of_its_range(scene):
    return scene.refused(adapter__rank=1000)


@case("settings", "invalid_settings")
def a_preview_of_a_width_that_no_vae_decodes(scene):
    return scene.refused(preview__width=500)


@case("settings", "invalid_settings")
def more_layers_skipped_than_the_text_encoder_has(scene):
    return scene.refused(model__clip_skip=9)


@case("settings", "invalid_settings")
def a_setting_that_is_not_there(scene):
    file = scene.folder / "mine.toml"
    file.write_text("[adapter]\nrnak = 16\n")
    return scene.check("--config", file)


@case("settings", "invalid_settings")
def a_file_that_is_no_toml(scene):
    file = scene.folder / "mine.toml"
    file.write_text("rank: 16\n")
    return scene.check("--config", file)


@case("settings", "invalid_settings")
def a_path_of_windows_in_double_quotes(scene):
    file = scene.folder / "mine.toml"
    file.write_text('[dataset]\nimages = "D:\\train\\new"\n')
    return scene.check("--config", file)


@case("settings", "invalid_settings")
def settings_in_the_place_of_a_presets_name(scene):
    file = scene.folder / "mine.toml"
    file.write_text("[adapter]\nrank = 16\n")
    return scene.console("--preset", file, "--images", scene.images(), "--home", scene.home.root)


@case("settings", "invalid_settings")
def settings_that_are_not_in_utf_8(scene):
    file = scene.folder / "mine.toml"
    file.write_bytes("[output]\nname = 'Mära'\n".encode("cp1252"))
    return scene.check("--config", file)


@case("settings", "invalid_settings")
def settings_that_are_not_there(scene):
    return scene.check("--config", scene.folder / "mine.toml")


@case("settings", "invalid_settings")
def a_preset_of_ones_own_that_is_damaged(scene):
    scene.home.presets.mkdir(parents=True)
    (scene.home.presets / "oil.toml").write_text('intent = "Oil."\n[adapter]\nrank = "much"\n')
    return scene.refused(preset="oil")


@case("settings", "invalid_settings")
def a_name_that_no_file_can_have(scene):
    return scene.refused(output__name="a/b")


@case("settings", "invalid_settings")
def settings_for_a_run_that_goes_on(scene):
    run = scene.new_run()
    return scene.console("--resume", run.path.name, "--home", run.home.root, "--adapter.rank", "8")


@case("settings", "invalid_settings")
def noise_that_ends_in_noise_alone_with_epsilon(scene):
    return scene.refused(objective__zero_terminal_snr="on", objective__prediction="epsilon")


@case("settings", "invalid_settings")
def a_vae_that_is_not_there(scene):
    return scene.refused(model__vae=scene.folder / "models" / "vae.safetensors")


@case("settings", "invalid_settings")
def a_model_of_another_family_than_the_settings_are_for(scene):
    base = headers.write(scene.folder / "models" / "base.safetensors", headers.sdxl())
    return scene.refused(preset="sd15-style", model__base_model=base)


@case("settings", "invalid_settings")
def a_second_text_encoder_that_is_not_there(scene):
    return scene.refused(adapter__text_encoder_2="true")


@case("settings", "invalid_settings")
def a_model_that_does_not_say_what_it_predicts(scene):
    base = headers.write(scene.folder / "models" / "base.safetensors", headers.sd2())
    return scene.refused(preset="sd2-style", model__base_model=base)


@case("settings", "invalid_settings")
def a_lora_to_go_on_from_with_a_text_encoder(scene):
    layer, file = "lora_te_text_model_encoder_layers_0_self_attn_q_proj", scene.folder / "loras" / "ana.safetensors"
    shapes = {"lora_down.weight": (16, 192), "lora_up.weight": (192, 16)}
    headers.write(file, {f"{layer}.{leaf}": shape for leaf, shape in shapes.items()})
    return scene.refused(adapter__start_from=file)


@case("settings", "invalid_settings", trains=True)
def a_device_that_is_not_there(scene):
    scene.patch.setattr("torch.backends.mps.is_available", lambda: False)
    return scene.train(scene.new_run(model={"device": "mps"}), "invalid_settings")


@case("settings", "invalid_settings", trains=True)
def half_precision_without_a_graphics_card(scene):
    return scene.train(scene.new_run(model={"precision": "fp16"}), "invalid_settings")


@case("settings", "invalid_settings", trains=True)
def settings_of_a_run_that_were_damaged(scene):
    run = scene.new_run()
    run.config_file.write_text("[adapter\n")
    return scene.train(run, "invalid_settings")


@case("settings", "invalid_settings")
def more_processes_than_images_in_a_step(scene):
    return scene.train(scene.new_run(model={"processes": 8}), "invalid_settings")


@case("settings", "foreign_file")
def settings_of_another_program(scene):
    file = scene.folder / "sdxl.json"
    file.write_text('{"LoRA_type": "Standard", "max_resolution": "1024,1024", "network_dim": 32, "sdxl": true}')
    return scene.check("--config", file)


@case("settings", "foreign_file")
def a_lora_file_in_the_place_of_settings(scene):
    return scene.check(
        "--config", headers.write(scene.folder / "ana.safetensors", {"lora_unet_mid.lora_down.weight": (4, 4)})
    )


@case("runs", "run_missing")
def a_run_that_is_not_there(scene):
    RunFolder.create(scene.home, validated({"output": {"name": "ana"}}))
    return scene.console("--resume", "anna", "--home", scene.home.root)


@case("runs", "project_missing")
def a_project_that_is_not_there(scene):
    Project.create(scene.home, "ana")
    return scene.console("--project", "anna", "--home", scene.home.root)


@case("runs", "run_busy")
def a_run_that_is_being_trained(scene):
    run = scene.new_run()
    run.record(psutil.Process())  # this very test stands for a trainer
    return scene.console("--resume", run.path.name, "--home", run.home.root)


@case("runs", "trainer_ended")
def a_trainer_that_was_killed(scene):
    run = scene.new_run()
    scene.patch.setattr(process, "start", lambda *_: SimpleNamespace(poll=lambda: -9, returncode=-9))
    return scene.console("--resume", run.path.name, "--home", run.home.root)


@case("runs", "export")
def a_lora_that_is_to_be_copied_to_no_folder(scene):
    from app.kit.action_errors import carded
    from app.live.result import Result

    run = scene.new_run()
    (run.path / "ana.safetensors").touch()
    copy = carded("said", partial(Result._copy, SimpleNamespace(home=run.home)))
    (card,) = copy(run.path.name, "ana.safetensors", "/home/ana/webui/loras", None).values()
    return scene.card(card, "export")


@case("runs", "file_exists")
def a_copy_of_a_data_set_where_something_is_already(scene):
    (scene.folder / "copy").mkdir()
    (scene.folder / "copy" / "a.txt").touch()
    return scene.console("--export-dataset", scene.images(), "--to", scene.folder / "copy", "--home", scene.home.root)


@case("captioning", "extra_missing")
def a_library_for_captions_that_is_not_installed(scene):
    scene.patch.setattr(catalogue, "find_spec", lambda _: None)
    return scene.console("--caption", scene.images(), "--with", "wd14", "--home", scene.home.root)


@case("captioning", "not_a_captioner")
def a_folder_that_holds_no_captioner(scene):
    scene.patch.setattr(catalogue, "find_spec", lambda _: True)
    (scene.folder / "tagger").mkdir()
    given = ("--with", "wd14", "--model", scene.folder / "tagger", "--home", scene.home.root)
    return scene.console("--caption", scene.images(), *given)


@case("captioning", "download_needed")
def a_captioner_that_is_still_to_be_fetched(scene):
    scene.patch.setattr(catalogue, "find_spec", lambda _: True)
    scene.patch.setattr(catalogue, "local_folder", lambda *_: None)
    return scene.console("--caption", scene.images(), "--with", "wd14", "--home", scene.home.root)


@case("captioning", "captioning_busy")
def a_folder_that_is_being_captioned(scene):
    folder = scene.images()
    job = jobs.prepare(scene.home, catalogue.caption_settings({"folder": str(folder)}))
    job.record(psutil.Process())
    return scene.console("--caption", folder, "--with", "file-names", "--home", scene.home.root)


@case("page", "port_in_use")
def a_port_that_another_program_has(scene):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        return scene.console("--port", other.getsockname()[1], "--home", scene.home.root, main=app.ui.main)


@case("page", "port_refused")
def a_number_that_is_no_port(scene):
    return scene.console("--port", 99999, "--home", scene.home.root, main=app.ui.main)


@case("page", "address_elsewhere")
def an_address_of_another_computer(scene):
    scene.patch.setenv("ATELIER_PASSWORD", "long enough")
    return scene.console("--listen", "203.0.113.7", "--home", scene.home.root, main=app.ui.main)


@case("settings", "invalid_settings")
def a_password_that_is_soon_guessed(scene):
    scene.patch.setenv("ATELIER_PASSWORD", "cat")
    return scene.console("--listen", "192.168.1.20", "--home", scene.home.root, main=app.ui.main)


@case("page", "password_missing")
def a_page_for_others_without_a_password(scene):
    scene.patch.delenv("ATELIER_PASSWORD", raising=False)
    scene.patch.setattr("sys.stdin", None)
    return scene.console("--listen", "192.168.1.20", "--home", scene.home.root, main=app.ui.main)
