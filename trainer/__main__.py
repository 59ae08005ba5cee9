"""`python -m trainer RUN`: train the run in that folder; every ending is one event, errors exit with code 2.

Without RUN it loads its libraries and waits on its standard input, up to its end, for the folder's path and its home's,
with a zero byte between them; nothing there means that it is not needed. With a group after RUN it trains nothing
itself: it starts the group's processes by PyTorch's launcher, logs how they ended, and is the process whose life is the
run's.
"""

import sys

from trainer.contract import stops

if __name__ == "__main__":
    stops.hold()  # the imports below take a moment, in which a signal would end the process without a word

import gc
import os
import select
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from trainer.contract import temporary
from trainer.contract.errors import Terminated, TrainerError, isolated
from trainer.contract.events import EventLog, RunFailed
from trainer.contract.files import sweep
from trainer.contract.home import HOME
from trainer.contract.ours import open_plain
from trainer.contract.system_errors import BrokenInstall, of_system
from trainer.engine.distributed import launcher
from trainer.runs.errors import RunBusy
from trainer.runs.folder import RunFolder
from trainer.runs.process import Group
from trainer.runs.queue import Queue

RESERVE_BYTES = 2**16


def main(arguments: list[str]) -> int:
    """Run the training, then start the next waiting run; returns 0 when it ended well, 2 when it failed."""
    run = RunFolder(Path(arguments[0]).absolute()) if arguments else _awaited()
    if run is None:
        return 0
    with stops.heard(partial(_asked_to_end, run)) as heard:
        return _train_in(run, arguments[1:], heard)


def _train_in(run: RunFolder, how: list[str], heard: stops.Heard) -> int:
    """What `main` says of this run, as one of a group if `how` says so."""
    first = os.environ.get("RANK", "0") == "0"
    if how == [launcher.LED]:
        launcher.end_with_launcher()
        return _train_and_log(run, first, led=True)
    group = Group.read(how)
    if not first or group.machine > 0:
        return _work(run, group, first=False)
    try:
        with run.alone():
            run.claim()
            sweep(run.path, alone=True)
            sweep(run.home.cache)
            with suppress(OSError):  # the system's is left then
                temporary.use(run.home)
            code = _work(run, group, first=True)
    except (RunBusy, OSError):  # nothing can be logged: they are another process's, or there is no room
        traceback.print_exc()
        return 1
    if heard.times:  # the system shuts down, and would end the next run too
        run.release()
        return code
    with isolated("Starting the next run", lambda _code, message, _hint: print(message, file=sys.stderr)):  # noqa: T201
        Queue(run.home).hand_over(run)
    return code


def _work(run: RunFolder, group: Group, first: bool) -> int:
    """This process's part of the group's training."""
    return launcher.launch_and_log(run, group) if group.size > 1 else _train_and_log(run, first)


def _awaited() -> RunFolder | None:
    """The run that comes on standard input; its log then takes what this process says."""
    _load_libraries()
    with stops.heard(_leave) as heard:
        path, _, home = os.fsdecode(sys.stdin.buffer.read()).partition("\0")
        if not path:
            return None
        stops.hold()  # until the run's are heard
    os.environ[HOME] = home  # as for a trainer that is started with its run
    run = RunFolder(Path(path))
    if heard.times:
        run.request("end")
    with open_plain(run.log_file, "a+b") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    return run


def _leave(_times: int) -> None:
    """Asked to end without a run, end; one that waits to be read is read and stopped."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        sys.exit(stops.ENDED_BY_SIGNAL)


def _load_libraries() -> None:
    """Import what training needs. All of it stays, so the garbage collector, a sixth of the time, is kept off it."""
    if "trainer.engine.loop" in sys.modules:
        return
    gc.disable()
    import trainer.engine.loop  # noqa: F401

    gc.freeze()
    gc.enable()


def _train_and_log(run: RunFolder, first: bool, led: bool = False) -> int:
    """The training with its event log, which only the first of several processes writes, to its one ending."""
    with (
        EventLog(run.events_file if first else None) as log,
        _reserve(run.path / ".reserve") as room,
    ):
        try:
            _train(run, log)
        except TrainerError as error:
            room.unlink(missing_ok=True)  # so that the reason fits on a disk that is full
            with suppress(OSError):
                if led:
                    launcher.report_to_launcher(error)
                else:
                    log.write(RunFailed(code=error.code, message=error.message, hint=error.hint))
            with suppress(OSError):
                traceback.print_exc()  # technical details go to log.txt
            return 2
    return 0


@contextmanager
def _reserve(path: Path) -> Iterator[Path]:
    """A little disk space to free when there is none left."""
    with suppress(OSError):
        path.unlink(missing_ok=True)  # a file of two names would be overwritten under both
        path.write_bytes(bytes(RESERVE_BYTES))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _asked_to_end(run: RunFolder, times: int) -> None:
    """Have the run stop and save after this step; asked again, end now.

    Raises:
        Terminated: It was asked before, or the request cannot be written.
    """
    if times > 1:
        raise Terminated
    try:
        run.request("end")
    except OSError as error:
        raise Terminated from error


def _train(run: RunFolder, log: EventLog) -> None:
    """The training, with what the system may raise turned into errors the user can act on."""
    try:
        _load_libraries()
        from trainer.engine.loop import train

        train(run, log)
    except TrainerError:
        raise
    except OSError as error:
        raise of_system(error) from error
    except ImportError as error:
        raise BrokenInstall(detail=str(error)) from error
    except Exception as error:
        from trainer.engine.errors import named

        raise named(error) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
