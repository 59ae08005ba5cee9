"""Several processes that train one run: started and watched here by PyTorch's launcher, on this computer and on others.

The process that calls `launch_and_log` trains nothing. Each of the group runs `python -m trainer RUN --led`.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import psutil

from trainer.contract.errors import ComputersApart, InvalidSettings, ProcessLost, Terminated, TrainerError
from trainer.contract.events import EventLog, RunFailed, RunFinished
from trainer.contract.settings.config import TrainConfig
from trainer.contract.wording import named, setting
from trainer.runs.folder import RunFolder
from trainer.runs.process import Group

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

LED = "--led"  # to one process of a group: the one that started it owns the run, reports its failure, starts the next
HERE = "127.0.0.1"
LOOK_SECONDS = 0.5
# The launcher's own handlers would kill the group; ours ask it to save, and this signal it may have
LEFT_TO_LAUNCHER = ["--signals-to-handle", "SIGQUIT"]


def launch_and_log(run: RunFolder, group: Group) -> int:
    """Returns 0 when the group's training ended normally, 2 when it failed, which is logged once all have ended."""
    began = time.time()
    try:
        _launch(run, group)
    except TrainerError as error:
        traceback.print_exc()
        ended = run.view().ended
        if isinstance(ended, RunFinished) and ended.t > began:
            return 0  # the training was over; a process fell over the threshold
        if group.machine == 0:
            with suppress(OSError), EventLog(run.events_file) as log:
                log.write(RunFailed(code=error.code, message=error.message, hint=error.hint))
        return 2
    return 0


def _launch(run: RunFolder, group: Group) -> None:
    """Train with this computer's part of the group, until all of it has ended.

    Raises:
        TrainerError: What the process that failed first had to say, or that it said nothing.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.run import parse_args
    from torch.distributed.run import run as launch

    _check(run.config(), group)
    with tempfile.TemporaryDirectory(prefix="atelier-") as logs, _environment(_for_each(group)):
        try:
            options = [*_options(group), *LEFT_TO_LAUNCHER, "--log-dir", logs, "--module"]
            launch(parse_args([*options, "trainer", str(run.path), LED]))  # type: ignore[no-untyped-call]
        except ChildFailedError as error:
            raise _cause(error) from error
        except SignalException as error:
            raise Terminated from error
        except (RendezvousError, RuntimeError) as error:  # nobody came, or the port is taken
            raise ComputersApart(detail=str(error).splitlines()[0]) from error


def _check(config: TrainConfig, group: Group) -> None:
    """Refuse a group that this computer, or a step, has not enough for.

    Raises:
        InvalidSettings: More processes than graphics cards, or than images in a step, or on Macs' graphics cards,
            between which nothing can be sent: each would train alone.
    """
    import torch

    from trainer.engine.device import choose_device

    device = choose_device(config.model.device)
    if device == "mps":
        raise InvalidSettings(
            f"{group.size} processes cannot train together with {named('model.device')} = mps.",
            hint=f"Set {setting('model.device', 'cpu')}, or train with one process.",
            places={"model.processes": "On a Mac's graphics card only one process can train."},
        )
    cards = torch.cuda.device_count() if device == "cuda" else group.processes
    if group.processes > cards:
        raise InvalidSettings(
            f"model.processes = {group.processes}, but this computer has {cards} graphics card{'s' * (cards > 1)}.",
            hint=f"Set {setting('model.processes', cards)}, or {setting('model.device', 'cpu')}.",
            places={"model.processes": f"This computer has {cards} graphics card{'s' * (cards > 1)}."},
        )
    batch = config.dataset.batch_size * config.dataset.accumulation
    if group.size > batch:
        raise InvalidSettings(
            f"{group.size} processes share each step's images, and there are only {batch} "
            f"({named('dataset.batch_size')} {config.dataset.batch_size} x "
            f"{named('dataset.accumulation')} {config.dataset.accumulation}).",
            hint=f"Raise {setting('dataset.batch_size')} or {setting('dataset.accumulation')}, or use fewer processes.",
            places={"model.processes": f"A step has only {batch} images to share."},
        )


def _options(group: Group) -> list[str]:
    """The launcher's own options."""
    here = ["--nproc-per-node", str(group.processes)]
    if group.machines == 1:
        return [*here, "--standalone", "--local-addr", HERE]  # this computer's name may lead nowhere
    host, _, port = group.address.rpartition(":")
    machines = ["--nnodes", str(group.machines), "--node-rank", str(group.machine)]
    return [*here, *machines, "--master-addr", host, "--master-port", port]


def _for_each(group: Group) -> dict[str, str]:
    """Environment variables of the group's processes, where the user has not set them."""
    import torch
    from accelerate.utils import check_cuda_p2p_ib_support

    wanted = {"OMP_NUM_THREADS": str(max(torch.get_num_threads() // group.processes, 1))}
    if torch.cuda.is_available() and not check_cuda_p2p_ib_support():  # accelerate refuses such cards otherwise
        wanted |= {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"}
    return {name: value for name, value in wanted.items() if name not in os.environ}


@contextmanager
def _environment(added: dict[str, str]) -> Iterator[None]:
    """More environment variables for a while: the next run must not inherit them, nor the launcher's."""
    before = dict(os.environ)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


def _cause(error: ChildFailedError) -> TrainerError:
    """Why the group failed: the earliest reason of its own, else which process went without a word."""
    failures = error.failures
    reasons = [failure.error_file_data for failure in failures.values() if "hint" in failure.error_file_data]
    own = [reason for reason in reasons if reason["code"] not in (Terminated.code, ProcessLost.code)]
    if own:
        first = min(own, key=lambda reason: reason["timestamp"])
        cause = TrainerError(first["message"], first["hint"])
        cause.code = first["code"]
        return cause
    silent = {n: f for n, f in failures.items() if "hint" not in f.error_file_data and f.exitcode != -signal.SIGTERM}
    for number, failure in silent.items():
        how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
        return ProcessLost(which=f"number {number} ({how})")
    return ProcessLost(which="the connection to it broke")


def end_with_launcher() -> None:
    """From now on this process ends at once when the one that started it has ended, in whatever way."""
    launcher = psutil.Process(os.getppid())

    def _watch() -> None:
        while os.getppid() == launcher.pid and launcher.is_running():  # Windows keeps the number of a parent gone
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    Thread(target=_watch, daemon=True).start()


def report_to_launcher(error: TrainerError) -> None:
    """Write the reason into the file that the launcher reads when a process of its group has failed."""
    reason = {"message": error.message, "hint": error.hint, "code": error.code, "timestamp": time.time()}
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(reason))
