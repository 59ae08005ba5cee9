"""Train a LoRA, or resume a run.

Ctrl-C stops and saves. Every setting has a flag, `--section.setting`; all are listed below, by section.
"""

from rich.console import Console

from trainer.console import progress
from trainer.console.bar import Bar
from trainer.console.errors import FAILED, show_error, show_note
from trainer.console.flags import Flags, Parser, add_settings, given, given_settings
from trainer.console.plan import show_model, show_overlays, show_plan, show_previews, show_settings, show_start
from trainer.contract.errors import InvalidSettings, isolated
from trainer.contract.events import Event, Lora, RunFailed, RunFinished, RunStarted, RunView, Sample, Step
from trainer.contract.home import Home
from trainer.contract.pasted import bare, host_of
from trainer.contract.settings.config import TrainConfig, validated
from trainer.contract.stops import ENDED_BY_SIGNAL
from trainer.contract.system_errors import FileGone
from trainer.contract.units import size
from trainer.contract.wording import action, for_console, setting
from trainer.dataset.captions import first_caption
from trainer.dataset.overlay import with_overlays
from trainer.dataset.scan import images_of
from trainer.dataset.views import plan
from trainer.doctor.masks import mask_problems
from trainer.planning.disk import check_space
from trainer.planning.effect import prompt_options, without_effect
from trainer.planning.estimate import disk_bytes, estimate
from trainer.planning.moving import GIVEN, move_inputs
from trainer.planning.ready import settled
from trainer.runs import process
from trainer.runs.errors import TrainerEnded
from trainer.runs.folder import RunFolder
from trainer.runs.process import Group
from trainer.runs.queue import Queue
from trainer.runs.sheets import before_after

USAGE = "--preset NAME --images DIR"
PHASES = {
    "load": "Loading the base model",
    "download": "Downloading the base model (MiB)",
    "encode": "Encoding images",
    "protect": "Generating class images",
    "dry_run": "Trying two steps",
    "train": "Training",
    "preview": "Generating previews",
    "export": "Saving",
}


def add_flags(parser: Parser) -> None:
    """Add all flags of a training, those used most first."""
    add_settings(parser, listed=True)
    add = parser.add_argument
    add("--project", metavar="NAME", type=bare, help="Train a project of the page as it stands; flags count more.")
    add("--check", action="store_true", help="Show the plan and every setting with its origin; train nothing.")
    add("--resume", metavar="RUN", help="Resume a run (its name or folder) from its last checkpoint.")
    moved = "Resume with files that were moved: old and new path, of a file or folder; for each."
    add("--moved", nargs=2, action="append", metavar=("OLD", "NEW"), help=moved)
    add("--queue", action="store_true", help="Train in the background, after the runs started before.")
    add("--processes", dest="model.processes", metavar="N", help="Train with N processes, also a resumed run.")
    several = parser.add_argument_group("several computers", "the same command on each, with a rank of its own")
    several.add_argument("--machines", metavar="N", type=int, help="How many computers train together.")
    several.add_argument("--machine-rank", metavar="K", type=int, help="Which of them this is: 0, 1, …")
    several.add_argument("--main-address", metavar="HOST:PORT", type=host_of, help="Where the others reach number 0.")


def run(flags: Flags, console: Console) -> int:
    """Train a new run or resume one; returns 0 when it ended well, or the plan was only checked."""
    home = Home.find(flags.get("home"))
    if flags.get("resume"):
        return _resume(RunFolder.find(home, flags["resume"]), flags, console)
    if flags.get("moved"):
        raise InvalidSettings("--moved is given without --resume.", hint="Name the run too: --resume RUN.")
    config, origins = resolve(flags, home)
    group = given_group(flags, config.model.processes, config.model.processes)
    images, problems = images_of(config.dataset)
    chosen = [place for place, origin in origins.items() if origin not in {"default", f"preset {config.preset}"}]
    problems += [*mask_problems(images, config, home), *prompt_options(config), *without_effect(config, chosen)]
    made = plan(len(images), config.dataset)
    if flags.get("check"):
        show_settings(config, origins, console)
    show_model(config.model.base_model, console)
    show_start(config, console)
    show_overlays(config.dataset, home, console)
    show_plan(config, made, problems, group, console)
    captions = [first_caption(item, config.dataset, config.model.seed) for item in images]
    show_previews(estimate(home, config).preview_plan(config, made, captions, group.size), console)
    needed = disk_bytes(config, made.steps, captions)
    if needed is not None:
        console.print(f"Disk: up to {size(needed)} in {home.runs}.", markup=False, soft_wrap=True)
        check_space(home.runs, needed)
    return 0 if flags.get("check") else _begin(RunFolder.create(home, config), group, flags, console)


def _resume(run: RunFolder, flags: Flags, console: Console) -> int:
    processes, pairs = flags.pop("model.processes", None), flags.pop("moved", [])
    given = {
        f"{section}.{key}": value for section, keys in given_settings(flags).items() for key, value in keys.items()
    }
    if given.keys() - set(GIVEN) or {"preset", "config", "check"} & flags.keys():
        raise InvalidSettings(
            "A resumed run keeps its settings, but others were given.",
            hint="Leave them out, or start a new run with them. Only where its files are now may be given: "
            f"{', '.join(map(setting, GIVEN))}.",
        )
    move_inputs(run, given, pairs)
    own = run.config().model
    model = validated({"model": {"processes": processes}}).model if processes else own
    return _begin(run, given_group(flags, model.processes, own.processes), flags, console)


def resolve(flags: Flags, home: Home) -> tuple[TrainConfig, dict[str, str]]:
    """Returns the settings of preset, file and flags with absolute paths, and where each came from.

    Raises:
        InvalidSettings: Neither preset nor file, or a value that is not allowed.
    """
    if not {"preset", "config", "project"} & flags.keys():
        raise InvalidSettings(
            "No preset given.", hint=f"Try {action('preset', 'pocket-style')}, or {action('presets')}."
        )
    config, origins = given(flags, home)
    concepts, config = config.dataset.concepts, settled(config)
    if len(config.dataset.concepts) > len(concepts):
        origins["dataset.concepts"] = "regularization images found"
    if config.dataset.captions or origins["dataset.captions"] == "default":  # given empty: only those of the folder
        dataset = with_overlays(config.dataset, home)
        if dataset.captions != config.dataset.captions:
            origins["dataset.captions"] = "changed here"
        config = config.model_copy(update={"dataset": dataset})
    return config, origins


def given_group(flags: Flags, processes: int, own: int) -> Group:
    """Returns the group of `processes` on each computer; a queued run is trained by its `own` number of them.

    Raises:
        InvalidSettings: The flags for several computers do not fit together, or the queue would start another number.
    """
    address = flags.get("main_address", "")
    group = Group(processes, flags.get("machines", 1), flags.get("machine_rank", 0), address)
    host, _, port = address.rpartition(":")
    if not 0 <= group.machine < group.machines or (group.machines > 1) != bool(host and port.isdecimal()):
        raise InvalidSettings(
            f'--machines {group.machines}, --machine-rank {group.machine} and --main-address "{address}" '
            "do not fit together.",
            hint="Of 2 computers the first takes --machines 2 --machine-rank 0 --main-address ITS-NAME:29500, "
            "the other the same with --machine-rank 1.",
        )
    if flags.get("queue") and group != Group(own):
        raise InvalidSettings(
            f"A run that waits its turn keeps its number of processes ({own}), on one computer.",
            hint="Leave out --queue, or --machines and --processes.",
        )
    return group


def _begin(run: RunFolder, group: Group, flags: Flags, console: Console) -> int:
    """Train and watch until the end, or leave the run to the queue or to the first of several computers."""
    if group.machine > 0:
        console.print(f"Computer {group.machine} of 0 to {group.machines - 1}; the first one shows the progress.")
        code = progress.wait(process.start(run, group), "Training with the first computer", console)
        console.print("Done." if code == 0 else f"Ended early; see {run.log_file}.", markup=False, soft_wrap=True)
        return code
    if not flags.get("queue"):
        return follow(run, group, console)
    queue = Queue(run.home)
    if queue.start(run):
        said = f"Started in the background: {run.path.name}"
    else:
        said = f"{run.path.name} waits as number {len(queue.waiting())}."
    console.print(said, markup=False, soft_wrap=True)
    return 0


def follow(run: RunFolder, group: Group, console: Console) -> int:
    """Train in a process of its own and show its events until it ends; Ctrl-C or SIGTERM asks it to stop and save.

    Raises:
        FileGone: The run's folder was moved or deleted.
        TrainerEnded: No event says how it ended.
    """
    console.print(f"Run folder: {run.path}", markup=False, soft_wrap=True)
    stopping = "Stopping after this step and saving"
    screen = _Screen(console)
    code = progress.follow(run, lambda: process.start(run, group), PHASES, stopping, show=screen.show, console=console)
    view = run.view()
    if code == ENDED_BY_SIGNAL:
        console.print(f"Ended at once. {_kept(run, view)}", markup=False, soft_wrap=True)
        return code
    match view.ended:
        case RunFailed() as failed if code == 2:  # else the ending is an earlier process's
            show_error(failed, console)
            return FAILED
        case RunFinished() as finished if code == 0:
            _report(run, view, finished, console)
            return 0
    if not run.config_file.is_file():
        raise FileGone(str(run.path))
    raise TrainerEnded(name=run.path.name, exit_code=code, log=run.log_file)


class _Screen:
    """Steps as a progress bar; everything worth keeping is printed above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._smooth: float | None = None
        self._steps_total = 0

    def show(self, event: Event, bar: Bar) -> None:
        """Bring the screen up to date."""
        match event:
            case RunStarted():
                self._steps_total = event.steps_total
                if event.resumed_at:
                    self._console.print(f"Resumed at step {event.resumed_at} of {event.steps_total}.")
            case Step():
                self._smooth = event.loss if self._smooth is None else 0.95 * self._smooth + 0.05 * event.loss
                note = f"loss {self._smooth:.4f}, {event.seconds:.2f} s/step, {event.memory_gib:.2f} GiB"
                bar.show(PHASES["train"], event.step, self._steps_total, note)
            case Sample(index=0):
                self._console.print(f"Preview at step {event.step}: {event.file}", markup=False)
            case Lora():
                self._console.print(f"Saved {event.file} ({size(event.bytes)})", markup=False)


def _kept(run: RunFolder, view: RunView) -> str:
    """What is left of a run that was ended at once, and how to resume it."""
    again = f"resume with {for_console(action('resume', run.path.name))}"
    if view.checkpoints:
        return f"The checkpoint of step {view.checkpoints[-1].step} is kept; {again}"
    return f"No checkpoint was saved yet; to begin again, {again}"


def _report(run: RunFolder, view: RunView, finished: RunFinished, console: Console) -> None:
    console.print(
        f"[bold green]{finished.reason.capitalize()}[/] at step {finished.step} after {finished.seconds:.0f} s."
    )
    if view.diverged:
        show_note(view.diverged.message, view.diverged.hint, console)
    if view.loras:
        newest = view.loras[-1]
        console.print(f"LoRA file:    {run.path / newest.file} ({size(newest.bytes)})", markup=False, soft_wrap=True)
    with isolated("The before/after sheet", lambda _code, message, _hint: show_note(message, "", console)):
        sheet = before_after(run, view)
        if sheet:
            console.print(f"Before/after: {sheet}", markup=False, soft_wrap=True)
    if finished.reason != "completed":
        console.print(f"Resume with:  {for_console(action('resume', run.path.name))}", markup=False, soft_wrap=True)
