"""Start a process of the trainer that outlives whoever started it, the same on Windows, macOS and Linux."""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Self

import psutil

from trainer.contract import stops
from trainer.contract.errors import InvalidSettings
from trainer.contract.home import CHECKOUT, HOME, Home
from trainer.contract.ours import open_plain
from trainer.runs.folder import RunFolder
from trainer.runs.workfolder import WorkFolder

_children: list[subprocess.Popen[bytes]] = []  # kept, because on POSIX one that ended stays until it is asked for
# glibc otherwise returns the memory of each step's activations to the system, and getting it again costs time
MEMORY_KEPT = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
# MKL's sums otherwise depend on memory addresses, on AMD at least: a resumed run would not be bit-exact
SAME_SUMS = {"MKL_CBWR": "AUTO,STRICT"}
_ready: list[subprocess.Popen[bytes]] = []  # the trainer that stands by, if there is one
_changing_ready = Lock()


@dataclass(frozen=True)
class Group:
    """The processes that train one run together, on this computer and on others."""

    processes: int = 1  # on each computer
    machines: int = 1
    machine: int = 0  # which of them this one is; only the first keeps the run's events
    address: str = ""  # where the others reach the first, HOST:PORT

    @classmethod
    def of(cls, run: RunFolder) -> Self:
        """The run's own number of processes, on this computer alone."""
        try:
            return cls(run.config().model.processes)
        except (InvalidSettings, OSError):  # the trainer reports what is wrong with them
            return cls()

    @classmethod
    def read(cls, arguments: list[str]) -> Self:
        """What `arguments` wrote."""
        if not arguments:
            return cls()
        processes, machines, machine, address = arguments
        return cls(int(processes), int(machines), int(machine), address)

    @property
    def size(self) -> int:
        """Processes in all."""
        return self.processes * self.machines

    def arguments(self) -> list[str]:
        """The trainer's arguments that make it start this group; a single process needs none."""
        return [str(value) for value in astuple(self)] if self.size > 1 else []


def start(run: RunFolder, group: Group | None = None) -> subprocess.Popen[bytes]:
    """Train (or resume) in the background; output goes to the run's `log.txt`.

    The run counts as alive from here on, not only once the new process has come so far as to say so itself. Of several
    processes that is the one which starts the others and ends when they have ended.

    Args:
        run: Its folder.
        group: How many processes train it, and where; None: as its settings say.

    Raises:
        RunBusy: A process is training there already.
        NewerVersion: A later version of this program has begun it.
        NotOurs: Something in its folder leads elsewhere.
    """
    run.refuse_strange()
    group = group or Group.of(run)
    _refuse_busy(run)
    run.refuse_newer()
    with run.alone():
        run.forget_requests()
        several = group.arguments()
        child = (None if several else _handed_over(run)) or _spawn(run, "trainer", *several)
        if group.machine == 0:
            with suppress(psutil.Error):  # it has ended already
                run.record(psutil.Process(child.pid))
    return child


def stand_by() -> None:
    """Have a trainer load its libraries before there is a run, so that `start` begins at once.

    It takes some 0.3 GB of memory, and ends with the process that asked for it, unless it got a run by then.
    """
    with _changing_ready:
        if _ready and _ready[0].poll() is not None:
            _close_input(_ready.pop())
        if not _ready:
            with Path(os.devnull).open("ab") as nowhere, suppress(OSError):
                _ready.append(_popen([], subprocess.PIPE, nowhere))


def stand_down() -> None:
    """Let the trainer that stands by go."""
    with _changing_ready:
        while _ready:
            child = _ready.pop()
            child.kill()  # it has done nothing yet
            child.wait()
            _close_input(child)


def _handed_over(run: RunFolder) -> subprocess.Popen[bytes] | None:
    """The trainer that stood by and has this run now; None if there is none, or it has ended."""
    with _changing_ready:
        child = _ready.pop() if _ready else None
    if child is None or child.stdin is None:
        return None
    try:
        with child.stdin as line:
            line.write(b"\0".join(map(os.fsencode, (run.path.absolute(), run.home.root))))
    except OSError:  # it has ended
        return None
    if child.poll() is not None:
        return None
    _children.append(child)
    return child


def _close_input(child: subprocess.Popen[bytes]) -> None:
    """Let go of a process that has ended."""
    if child.stdin is not None:
        child.stdin.close()


def generate_strip(run: RunFolder, file: str) -> subprocess.Popen[bytes]:
    """Generate the strength strip of one of the run's LoRA files in the background; output goes to the run's `log.txt`.

    Raises:
        RunBusy: A process is training there, and two models may not fit into memory.
        NotOurs: Something in its folder leads elsewhere.
    """
    run.refuse_strange()
    _refuse_busy(run)
    return _spawn(run, "trainer.engine.strength_strip", file)


def work(folder: WorkFolder, module: str) -> subprocess.Popen[bytes]:
    """Do other work than training in the background; output goes to the folder's `log.txt`.

    Raises:
        RunError: A process does it already.
    """
    _refuse_busy(folder)
    with folder.alone():
        folder.forget_requests()
        child = _spawn(folder, module)
        with suppress(psutil.Error):  # it has ended already
            folder.record(psutil.Process(child.pid))
    return child


def _refuse_busy(folder: WorkFolder) -> None:
    busy = folder.process()
    if busy is not None:
        raise folder.busy(busy.pid)


def _spawn(folder: WorkFolder, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A detached `python -m MODULE FOLDER ARGUMENTS`."""
    with open_plain(folder.log_file, "a+b") as log:
        child = _popen([str(folder.path.absolute()), *arguments], subprocess.DEVNULL, log, module, folder.home)
    reap()
    _children.append(child)
    return child


def _popen(
    arguments: list[str], stdin: int, output: IO[bytes], module: str = "trainer", home: Home | None = None
) -> subprocess.Popen[bytes]:
    path = _with_checkout(os.environ.get("PYTHONPATH", ""))
    environment = {**MEMORY_KEPT, **SAME_SUMS, **os.environ, "PYTHONUTF8": "1", "PYTHONPATH": path}
    environment |= {HOME: str(home.root)} if home else {}  # a folder does not tell it: links, and runs that were moved
    with stops.held_back():
        return subprocess.Popen(  # noqa: S603 - an argument list, no shell
            # -P: a torch.py in the folder where the user stands is not ours
            [sys.executable, "-P", "-m", module, *arguments],
            cwd=CHECKOUT,
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=environment,
            creationflags=_detached_flags(),
            start_new_session=os.name == "posix",
        )


def force_quit(folder: WorkFolder) -> bool:
    """Kill a process that no longer responds; what it saved last stays. Returns whether there was one."""
    worker = folder.process()
    if worker is None:
        return False
    with suppress(psutil.NoSuchProcess):
        several = [
            worker,
            *worker.children(recursive=True),
        ]  # the parent first: it would report the others' end as a failure
        for one in several:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(several, timeout=10)
    reap()
    return True


def reap() -> None:
    """Let go of the processes started here that have ended."""
    _children[:] = [child for child in _children if child.poll() is None]


def _detached_flags() -> int:
    """Windows' way to outlive a closed console; elsewhere a new session does it."""
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return 0


def _with_checkout(search_path: str) -> str:
    """Python's search path with the checkout first, so a run starts from any working directory."""
    return os.pathsep.join(filter(None, [str(CHECKOUT), search_path]))
