"""Start Atelier: install its packages once if they are missing, then start the page, a command or the tests.

    python launch.py                           open the page
    python launch.py COMMAND …                 train, caption, doctor …: `python launch.py --help` lists the commands
    python launch.py test [pytest arguments]   run the tests

Standard library only, because nothing else is there on the first start.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (started with an older Python, a sentence is better than a traceback)
    sys.exit(f"Atelier needs Python 3.11 or newer; this is Python {sys.version.split()[0]}.")

import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
PAGE_FLAGS = {"--home", "--port", "--listen", "--allow-host", "--password-file", "--no-browser"}
TORCH_INDEX = "https://download.pytorch.org/whl"


def say(text: str, error: bool = False) -> None:
    """Print where somebody may read it: without a console, or with nobody left, the work continues."""
    stream = sys.stderr if error else sys.stdout
    with suppress(OSError, ValueError, AttributeError):  # AttributeError: there is none (pythonw, a service)
        stream.write("".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text) + "\n")
        stream.flush()


class SetupFailed(Exception):
    """The set-up stopped; the first line says what happened, the next ones what to do about it."""


class Machine(NamedTuple):
    """All that decides which build of PyTorch fits here."""

    system: str  # as platform.system() says: Linux, Windows, Darwin
    architecture: str  # as platform.machine() says: x86_64, AMD64, aarch64, arm64
    cuda: tuple[int, int] | None = None  # newest CUDA version the NVIDIA driver supports
    capability: tuple[int, int] | None = None  # of the newest card; None if the driver is too old to tell
    rocm: bool = False
    index_answers: bool = True


class Build(NamedTuple):
    """One build of PyTorch: its folder on PyTorch's wheel index, or None for pip's own index."""

    folder: str | None
    description: str


PIPS_OWN = Build(None, "the build in pip's own index, 100 MB to 2.5 GB by system")
CPU = Build("cpu", "CPU build, about 200 MB")
OLD_DRIVER = Build("cpu", f"{CPU.description}; to use the NVIDIA card, update its driver, delete .venv and start again")
CUDA_12 = Build("cu126", "NVIDIA build for CUDA 12.6, about 2.5 GB")
CUDA_13 = Build("cu130", "NVIDIA build for CUDA 13.0, about 2.5 GB")
ROCM = Build("rocm7.2", "AMD build for ROCm 7.2, about 5 GB")


def torch_build(machine: Machine) -> Build:
    """Returns the build of torch 2.13 that uses this machine's card.

    By the tables in PyTorch's RELEASE.md, 2.13 is published for CUDA 12.6 (compute capability 5.0 to 9.0, x86 only),
    CUDA 13.0 (7.5 and newer), ROCm 7.2 (Linux) and CPU; cu132 is experimental. A driver runs every build of its own
    CUDA major version or an older one (NVIDIA's minor-version compatibility), hence 12.0, not 12.6.
    """
    if machine.system == "Darwin" or not machine.index_answers:
        return PIPS_OWN  # on a Mac, that is the build with Metal
    x86 = machine.architecture.lower() in {"x86_64", "amd64"}
    if machine.cuda and (x86 or machine.system == "Linux"):
        capability = machine.capability or (7, 5)
        if machine.cuda >= (13, 0) and capability >= (7, 5):
            return CUDA_13
        return CUDA_12 if x86 and machine.cuda >= (12, 0) and capability <= (9, 0) else OLD_DRIVER
    return ROCM if machine.rocm and machine.system == "Linux" and x86 else CPU


def torch_arguments(machine: Machine, requirement: str, torch_command: str = "") -> list[str]:
    """Returns pip's arguments that install PyTorch here: within a range, or as the user's TORCH_COMMAND says."""
    if torch_command:
        windows = machine.system == "Windows"  # where a backslash separates folders and escapes nothing
        words = [word.strip("\"'") if windows else word for word in shlex.split(torch_command, posix=not windows)]
        if words[:2] != ["pip", "install"] or len(words) == 2:
            raise SetupFailed(
                f"TORCH_COMMAND is {torch_command!r}, which pip cannot run.\n"
                'Write it like this: TORCH_COMMAND="pip install torch==2.13.0"'
            )
        return words[1:]
    folder = torch_build(machine).folder
    return ["install", requirement, *(["--index-url", f"{TORCH_INDEX}/{folder}"] if folder else [])]


def cuda_of_driver(nvidia_smi_header: str) -> tuple[int, int] | None:
    """Returns the newest CUDA version the driver supports; drivers from 610 on call it `CUDA UMD Version`."""
    found = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+)\.(\d+)", nvidia_smi_header)
    return (int(found[1]), int(found[2])) if found else None


def newest_capability(compute_caps: str) -> tuple[int, int] | None:
    """Returns the highest compute capability among the cards, from one `8.6` per line."""
    found = re.findall(r"^(\d+)\.(\d+)", compute_caps, re.MULTILINE)
    return max(((int(major), int(minor)) for major, minor in found), default=None)


def nvidia_smi(*arguments: str) -> str:
    """Returns what nvidia-smi prints, nothing where there is none or it fails."""
    program = shutil.which("nvidia-smi") or ""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run([program, *arguments], capture_output=True, timeout=10, check=True)
        return done.stdout.decode(errors="replace")
    return ""


def answers(url: str, seconds: float) -> bool:
    """Returns whether a web address answers in time; in a thread, since a dead name server obeys no time limit."""
    got: list[int] = []

    def _ask() -> None:
        with suppress(OSError, HTTPException), urlopen(url, timeout=seconds) as answer:  # noqa: S310 (our own constant)
            got.append(answer.status)

    asking = threading.Thread(target=_ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return bool(got)


def this_machine() -> Machine:
    """Returns what this machine has, by asking its drivers and PyTorch's index."""
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        cuda=cuda_of_driver(nvidia_smi()),
        capability=newest_capability(nvidia_smi("--query-gpu=compute_cap", "--format=csv,noheader")),
        rocm=Path("/dev/kfd").exists() and (Path("/opt/rocm").exists() or shutil.which("rocminfo") is not None),
        index_answers=answers(f"{TORCH_INDEX}/cpu/torch/", seconds=4),
    )


class Stage(NamedTuple):
    """One step of the set-up, done when its marker file in .venv holds the digest of its requirements."""

    name: str
    requirements: list[str]
    size: str  # what pip downloads for it, torch apart

    @property
    def marker(self) -> Path:
        """The file whose right content says that all of this stage is installed."""
        return VENV / f"atelier-{self.name}-is-ready"

    @property
    def lock(self) -> list[Path]:
        """The file that names every package in one version with its hashes, if there is one."""
        return [file for file in [ROOT / "assets" / "locks" / f"{self.name}.txt"] if file.is_file()]

    @property
    def digest(self) -> str:
        """Changes when a requirement does, whatever their order, or the lock."""
        wanted = ["\n".join(sorted(self.requirements)), *(file.read_text("utf-8") for file in self.lock)]
        return hashlib.sha256("".join(wanted).encode()).hexdigest()

    @property
    def done(self) -> bool:
        """Whether exactly these requirements were once installed to the end."""
        return self.marker.is_file() and self.marker.read_text() == self.digest


def stages(testing: bool) -> list[Stage]:
    """Returns what must be installed, read from pyproject.toml, the only file that names packages."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    trainer = Stage("trainer", project["dependencies"], "60 MB")
    return [trainer, Stage("test", project["optional-dependencies"]["test"], "80 MB")] if testing else [trainer]


def name_of(requirement: str) -> str:
    """Returns the package's name: `torch` for `torch>=2.13,<2.14`."""
    return re.split(r"[<>=\s]", requirement, maxsplit=1)[0]


def numbers(version: str) -> tuple[int, ...]:
    """Returns a version's leading numbers: (2, 13, 0) for `2.13.0+cpu`."""
    return tuple(int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0]))


def present(requirement: str) -> bool:
    """Returns whether the running Python has a package in its range; only the form `name>=a,<b` is understood."""
    try:
        version = numbers(metadata.version(name_of(requirement)))
    except metadata.PackageNotFoundError:
        return False
    bounds = re.findall(r"(>=|<)([\d.]+)", requirement)
    return all(version >= numbers(bound) if sign == ">=" else version < numbers(bound) for sign, bound in bounds)


def starts(*arguments: str) -> bool:
    """Returns whether the environment's Python starts and does this without an error."""
    with suppress(OSError):
        return subprocess.run([VENV_PYTHON, "-I", *arguments], capture_output=True, check=False).returncode == 0
    return False


def ready(wanted: list[Stage]) -> bool:
    """Returns whether .venv can be used as it is."""
    return all(stage.done for stage in wanted) and starts("-S", "-c", "")


def environment(wanted: list[Stage]) -> str:
    """Returns a Python that has every package: the running one, else the one in .venv, set up if need be."""
    if all(present(requirement) for stage in wanted for requirement in stage.requirements):
        return sys.executable
    if not ready(wanted):
        with only_one():
            if not ready(wanted):  # another start may have done it while we waited
                set_up(wanted)
    return str(VENV_PYTHON)


@contextmanager
def only_one() -> Iterator[None]:
    """Let one start at a time set up; the system drops the lock with its process, so none can be left behind."""
    with (ROOT / ".venv.lock").open("a") as file:
        os.set_inheritable(file.fileno(), True)  # if we are killed, our pip continues and keeps the lock
        if not locked(file.fileno()):
            say("Another start is setting Atelier up; waiting for it.")
            while not locked(file.fileno()):
                time.sleep(0.5)
        yield


def locked(file: int) -> bool:
    """Returns whether we now hold the lock on an open file."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # how Unix and Windows say that another process holds it
        return False
    return True


def set_up(wanted: list[Stage]) -> None:
    """Install everything into .venv; what an interrupted set-up left there is used or repaired.

    The requirements are installed, not the project (`pip install -e .`): that would need a build back-end, write into
    the checkout, and tie .venv to the folder's path, which may hold any letter and may be renamed.
    """
    say(f"Setting up Atelier, this once, in {VENV} (delete that folder to undo it).")
    make_environment()
    for stage in wanted:
        if stage.done:
            continue
        stage.marker.unlink(missing_ok=True)
        packages = {name_of(requirement): requirement for requirement in stage.requirements}
        if "torch" in packages:
            install_torch(packages.pop("torch"))
        if packages:
            locked = [word for file in stage.lock for word in ("--no-deps", "--require-hashes", "-r", str(file))]
            step(f"{', '.join(packages)}: about {stage.size}", pip("install", *(locked or packages.values())))
        stage.marker.write_text(stage.digest)
    say("Set-up finished.")


def make_environment() -> None:
    """Make .venv, unless it has a Python that starts and a pip that works."""
    if not starts("-m", "pip", "--version") and not (starts("-m", "ensurepip") and starts("-m", "pip", "--version")):
        if VENV.exists():
            say("The Python in .venv no longer works: creating it again.")
            shutil.rmtree(VENV)
        step("A Python environment, about 20 MB", [sys.executable, "-I", "-m", "venv", str(VENV)])
    # A killed pip leaves a package that it takes for complete next time; RECORD is what it writes last.
    for package in [*VENV.glob("lib/python*/site-packages/*.dist-info"), *VENV.glob("Lib/site-packages/*.dist-info")]:
        if not (package / "RECORD").exists():
            shutil.rmtree(package)


def install_torch(requirement: str) -> None:
    """Install the build of PyTorch that fits this machine, or the one the user asks for."""
    machine = this_machine()
    command = os.environ.get("TORCH_COMMAND", "")
    what = f"as TORCH_COMMAND says: {command}" if command else torch_build(machine).description
    step(f"PyTorch, {what}", pip(*torch_arguments(machine, requirement, command)))


def pip(*arguments: str) -> list[str]:
    """Returns the command that runs the environment's own pip; it shows progress only in a terminal.

    It compiles nothing: of 14,000 modules a training imports 3,000, and Python compiles those when it first does.
    """
    quiet = [] if sys.stdout and sys.stdout.isatty() else ["-qq"]
    chosen = ["--no-compile", "--no-input", "--disable-pip-version-check", *quiet]
    return [str(VENV_PYTHON), "-I", "-m", "pip", *arguments, *chosen]


def step(what: str, command: list[str]) -> None:
    """Print what is done and do it; if it fails, its last lines stay on the screen.

    Raises:
        SetupFailed: It ended with an error.
    """
    say(f"- {what}")
    code = subprocess.run(command, check=False, close_fds=False).returncode  # it inherits the lock
    if code != 0:
        raise SetupFailed(
            f"This step ended with code {code}: {what}\n"
            "Its last lines above tell why (often: no network, a full disk, or a Python too new for PyTorch)."
        )


def hand_over(command: list[str], variables: dict[str, str]) -> int:
    """Become this program, so that signals and exit code are its own; Windows can only start it and wait."""
    if sys.platform != "win32":
        os.execve(command[0], command, variables)  # noqa: S606 (an argument list; there is no shell)
    signal.signal(signal.SIGINT, lambda *_: None)  # the console sends Ctrl-C to the program too: it decides, we wait
    return subprocess.run(command, env=variables, check=False).returncode


def main(arguments: list[str]) -> int:
    """Returns the exit code: of what was started, or 2 if the set-up failed."""
    for name in ("SIGTERM", "SIGHUP"):  # as Ctrl-C: also ends the step that runs
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), signal.default_int_handler)
    testing = arguments[:1] == ["test"] and arguments[1:] not in (["-h"], ["--help"])
    try:
        python = environment(stages(testing))
    except (SetupFailed, OSError, KeyboardInterrupt) as failure:
        say(f"\nThe set-up stopped. {failure}\nStart again to continue.", error=True)
        return 130 if isinstance(failure, KeyboardInterrupt) else 2
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, "PYTHONPATH": search_path, "PYTHONUTF8": "1"}
    if python == str(VENV_PYTHON):
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # or every start would compile again what pip left uncompiled
    if testing:
        os.chdir(ROOT)
        return hand_over([python, str(Path("tests", "suite.py")), *arguments[1:]], variables)
    # -P: the user's folder stays the working folder, but a `trainer` or `torch.py` in it is not ours
    return hand_over([python, "-P", "-m", *program(arguments)], variables)


def program(arguments: list[str]) -> list[str]:
    """Returns module and arguments: the page's where there is no command and no other flag, else the console's."""
    flags = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    of_the_page = flags <= PAGE_FLAGS and (not arguments or arguments[0].startswith("-"))
    return ["app.ui" if of_the_page else "trainer.console.main", *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
