"""launch.py: what it chooses, what it sets up and mends, and how it hands over; real processes, no network."""

import ast
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import suite

import launch
from launch import Machine

ROOT = Path(launch.__file__).parent
TORCH = "torch>=2.13,<2.14"

# The stub tells what reached it. With `wait` it waits for Ctrl-C and counts those of the half second after the first.
STUB = """
import json, os, signal, sys, time
if __name__ == "__main__":
    if sys.argv[1:] == ["wait"]:
        caught = []
        signal.signal(signal.SIGINT, lambda *_: caught.append(1))
        print("waiting", flush=True)
        while not caught:
            time.sleep(0.05)
        time.sleep(0.5)
        print("interrupts", len(caught))
        sys.exit(5)
    seen = {"arguments": sys.argv[1:], "folder": os.getcwd(), "python": sys.executable}
    print(json.dumps({**seen, "compiles": not sys.dont_write_bytecode}))
    sys.exit(7)
"""


def make_checkout(folder: Path, dependencies: list[str]) -> Path:
    root = folder / "Prüf stand"
    (root / "trainer" / "console").mkdir(parents=True)
    (root / "trainer" / "console" / "main.py").write_text(STUB)
    shutil.copy(ROOT / "launch.py", root)
    (root / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "suite.py", root / "tests")
    declare(root, dependencies)
    return root


def declare(root: Path, dependencies: list[str]) -> None:
    extra = 'optional-dependencies.test = ["pytest>=1,<99"]'
    (root / "pyproject.toml").write_text(f"[project]\ndependencies = {json.dumps(dependencies)}\n{extra}\n")


def start(root: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, str(root / "launch.py"), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=600, **options)


@pytest.fixture(scope="module", autouse=True)
def only_the_checkout_of_the_test():
    """`launch.py test` puts the real checkout on the path; the ones made here bring their own trainer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        yield


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path, dependencies=[])


# --- which PyTorch ---------------------------------------------------------------------------------------------------

LINUX, WINDOWS, MAC, ARM = ("Linux", "x86_64"), ("Windows", "AMD64"), ("Darwin", "arm64"), ("Linux", "aarch64")


@pytest.mark.parametrize(
    ("machine", "folder"),
    [
        (Machine(*LINUX), "cpu"),
        (Machine(*WINDOWS), "cpu"),
        (Machine(*ARM), "cpu"),
        (Machine("Windows", "ARM64"), "cpu"),
        (Machine(*MAC), None),
        (Machine(*LINUX, cuda=(13, 0), capability=(8, 6)), "cu130"),
        (Machine(*WINDOWS, cuda=(13, 3), capability=(12, 0)), "cu130"),
        (Machine(*ARM, cuda=(13, 0), capability=(9, 0)), "cu130"),
        (Machine(*WINDOWS, cuda=(12, 8), capability=(8, 9)), "cu126"),
        (Machine(*LINUX, cuda=(12, 2)), "cu126"),  # a driver too old to tell the card's capability
        (Machine(*WINDOWS, cuda=(13, 0), capability=(6, 1)), "cu126"),  # GTX 10xx: CUDA 13 dropped it
        (Machine(*LINUX, cuda=(12, 8), capability=(12, 0)), "cpu"),  # RTX 50xx: CUDA 12.6 does not know it
        (Machine(*LINUX, cuda=(11, 4), capability=(7, 5)), "cpu"),
        (Machine(*ARM, cuda=(12, 6), capability=(8, 7)), "cpu"),
        (Machine(*LINUX, rocm=True), "rocm7.2"),
        (Machine(*WINDOWS, rocm=True), "cpu"),
        (Machine(*LINUX, cuda=(13, 0), rocm=True), "cu130"),
        (Machine(*LINUX, cuda=(13, 0), index_answers=False), None),
        (Machine(*WINDOWS, index_answers=False), None),
    ],
)
def test_the_torch_build_fits_the_machine(machine, folder):
    index = ["--index-url", f"https://download.pytorch.org/whl/{folder}"] if folder else []
    assert launch.torch_arguments(machine, TORCH) == ["install", TORCH, *index]


def test_a_card_left_unused_for_its_driver_is_told():
    assert "update its driver" in launch.torch_build(Machine(*LINUX, cuda=(11, 4))).description


@pytest.mark.parametrize(
    ("system", "command", "arguments"),
    [
        ("Linux", "pip install torch==2.13.0", ["install", "torch==2.13.0"]),
        ("Linux", 'pip install "/my wheels/torch.whl"', ["install", "/my wheels/torch.whl"]),
        ("Linux", "pip install torch; rm -r x", ["install", "torch;", "rm", "-r", "x"]),  # words, no shell
        ("Windows", r'pip install "C:\my wheels\torch.whl"', ["install", r"C:\my wheels\torch.whl"]),
    ],
)
def test_torch_command_overrides_the_choice(system, command, arguments):
    assert launch.torch_arguments(Machine(system, "x86_64", cuda=(13, 0)), TORCH, command) == arguments


@pytest.mark.parametrize("command", ["torch==2.13.0", "conda install torch", "pip install", "pip uninstall torch"])
def test_a_torch_command_that_is_none_is_refused(command):
    with pytest.raises(launch.SetupFailed, match=re.escape(command)):
        launch.torch_arguments(Machine(*LINUX), TORCH, command)


@pytest.mark.parametrize(
    ("header", "version"),
    [
        ("| NVIDIA-SMI 535.104.05   Driver Version: 535.104.05   CUDA Version: 12.2     |", (12, 2)),
        ("| NVIDIA-SMI 610.62   KMD Version: 610.62   CUDA UMD Version: 13.3     |", (13, 3)),
        ("| NVIDIA-SMI 390.87   Driver Version: 390.87   |", None),
        ("| NVIDIA-SMI 470.1   Driver Version: 470.1   CUDA Version: N/A |", None),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", None),
        ("", None),
    ],
)
def test_the_cuda_version_is_read_from_the_header_of_nvidia_smi(header, version):
    assert launch.cuda_of_driver(f"Sun Nov 22 02:00:00 2026\n+------+\n{header}\n") == version


@pytest.mark.parametrize(
    ("lines", "capability"), [("8.6\n", (8, 6)), ("6.1\r\n12.0\r\n", (12, 0)), ("[N/A]\n", None), ("", None)]
)
def test_the_newest_card_counts(lines, capability):
    assert launch.newest_capability(lines) == capability


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for nvidia-smi is a shell script")
@pytest.mark.parametrize(("script", "said"), [("echo CUDA Version: 12.4", "CUDA Version: 12.4\n"), ("echo; false", "")])
def test_nvidia_smi_is_believed_unless_it_fails(tmp_path, monkeypatch, script, said):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch.nvidia_smi() == said


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, str]]:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_a_server_that_answers_is_seen(server):
    def answer() -> None:
        with server[0].accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    assert launch.answers(server[1], seconds=20)


def test_a_server_that_never_comes_to_an_end_does_not_answer(server):
    def drip() -> None:  # each byte comes in time, so that no time limit of a socket is ever reached
        with suppress(OSError), server[0].accept()[0] as connection:
            for _ in range(300):
                connection.sendall(b"H")
                time.sleep(0.1)

    threading.Thread(target=drip, daemon=True).start()
    before = time.monotonic()
    assert not launch.answers(server[1], seconds=0.3)
    assert time.monotonic() - before < 15


# --- what it may use and read ----------------------------------------------------------------------------------------


def test_launch_needs_only_the_standard_library_and_its_syntax_is_known_to_python_3_8():
    tree = ast.parse((ROOT / "launch.py").read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_an_older_python_gets_one_sentence():
    pretend = "import runpy, sys; sys.version_info = (3, 8, 18); runpy.run_path(sys.argv[1], run_name='__main__')"
    said = subprocess.run(
        [sys.executable, "-c", pretend, str(ROOT / "launch.py")], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert re.fullmatch(r"Atelier needs Python 3\.11 or newer; this is Python [\d.]+\.\n", said.stderr)


def test_every_requirement_is_of_the_form_that_launch_understands():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = project["dependencies"] + project["optional-dependencies"]["test"]
    assert [text for text in requirements if not re.fullmatch(r"[a-z0-9-]+>=\d+(\.\d+)*,<\d+(\.\d+)*", text)] == []
    assert TORCH in requirements


@pytest.mark.parametrize(
    ("requirement", "answer"),
    [
        ("pytest>=1,<99", True),
        (f"pytest>={pytest.__version__},<99", True),
        (f"pytest>=1,<{pytest.__version__}", False),
        ("pytest>=98,<99", False),
        ("atelier-nowhere>=1,<2", False),
    ],
)
def test_a_package_is_present_if_its_version_is_in_range(requirement, answer):
    assert launch.present(requirement) is answer


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.13.0+cpu", (2, 13, 0)), ("5.23.0rc1", (5, 23, 0)), ("15", (15,)), ("26.3.dev0", (26, 3))],
)
def test_a_version_is_compared_by_its_leading_numbers(version, numbers):
    assert launch.numbers(version) == numbers


# --- handing over ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--no-browser"], ["--port", "8000", "--home=x"], ["--listen", "x"]])
def test_where_nothing_is_said_of_a_training_the_page_opens(arguments):
    assert launch.program(arguments) == ["app.ui", *arguments]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--preset", "x"],
        ["train"],
        ["--help"],
        ["test", "-h"],
        ["--home", "x", "--list-presets"],
        ["--port", "1", "-h"],
    ],
)
def test_everything_else_is_the_consoles(arguments):
    assert launch.program(arguments) == ["trainer.console.main", *arguments]


def test_convert_is_the_converters_word():
    assert launch.program(["convert", "a model.ckpt"]) == ["trainer.console.main", "convert", "a model.ckpt"]


def test_plain_launch_hands_over_to_the_page(checkout):
    (checkout / "app").mkdir()
    (checkout / "app" / "ui.py").write_text("print('the page')\n")
    assert start(checkout).stdout == "the page\n"


def test_the_trainer_gets_the_arguments_and_the_users_folder_and_its_exit_code_comes_back(checkout, tmp_path):
    said = start(checkout, "--name", "zwei Wörter", "--images=./bilder", cwd=tmp_path)
    seen = json.loads(said.stdout)
    assert seen["arguments"] == ["--name", "zwei Wörter", "--images=./bilder"]
    assert (seen["folder"], seen["python"]) == (str(tmp_path), sys.executable)
    assert said.returncode == 7


def test_a_trainer_in_the_users_folder_is_not_ours(checkout, tmp_path):
    (tmp_path / "trainer" / "console").mkdir(parents=True)
    (tmp_path / "trainer" / "console" / "main.py").write_text("raise SystemExit('the wrong trainer')")
    assert start(checkout, "--help", cwd=tmp_path).returncode == 7


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("platform", [sys.platform, "win32"])
def test_ctrl_c_reaches_the_trainer_once_and_its_end_is_awaited(checkout, platform):
    script = "import sys, launch; sys.platform = sys.argv.pop(1); sys.exit(launch.main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, platform, "wait"]
    running = subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with running:
        assert running.stdout.readline() == "waiting\n"
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        assert running.stdout.read() == "interrupts 1\n"
    assert running.returncode == 5


def test_test_runs_pytest_from_the_checkouts_root_with_the_users_arguments(checkout, tmp_path):
    (checkout / "test_one.py").write_text(
        "from pathlib import Path\ndef test_root():\n    assert Path('launch.py').exists()\ndef test_two():\n    pass\n"
    )
    without_browser = {**os.environ, "ATELIER_CHROMIUM": "/nowhere/chromium", "CI": "false"}
    said = start(checkout, "test", "-k", "root", "-p", "no:cacheprovider", cwd=tmp_path, env=without_browser)
    assert (said.returncode, "1 passed, 1 deselected" in said.stdout) == (0, True), said.stdout + said.stderr


# --- a browser for the tests -----------------------------------------------------------------------------------------


def program(folder: Path, name: str, script: str = "") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def computer(tmp_path, monkeypatch) -> Path:
    """A computer whose only programs are those in this folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ATELIER_CHROMIUM", raising=False)
    return tmp_path


posix = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts")


@posix
def test_the_chosen_browser_comes_before_any_other(computer, monkeypatch):
    program(computer, "chromium")
    other = program(computer, "mein chromium")
    assert suite.find_chromium() == str(computer / "chromium")
    monkeypatch.setenv("ATELIER_CHROMIUM", str(other))
    assert suite.find_chromium() == str(other)
    other.unlink()
    assert suite.find_chromium() is None


@posix
def test_playwrights_own_browser_is_taken_where_there_is_no_other(computer):
    own = program(computer, "its own")
    python = program(computer, "python", f"echo {own}")
    assert suite.find_chromium(str(python)) == str(own)
    own.unlink()
    assert suite.find_chromium(str(python)) is None


@posix
def test_debians_chromium_is_installed_for_root(computer, monkeypatch, capfd):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    python = program(computer, "python")
    install = 'echo "$@"; test "$1" = update || { printf "" > "${0%/*}/chromium"; /bin/chmod +x "${0%/*}/chromium"; }'
    program(computer, "apt-get", install)
    assert suite.ready_browser(str(python)) == str(computer / "chromium")
    said = capfd.readouterr().out
    assert "- apt-get install -qy --no-install-recommends chromium" in said
    assert suite.ready_browser(str(python)) == str(computer / "chromium")
    assert capfd.readouterr().out == ""


@posix
@pytest.mark.parametrize("user", [0, 1000])
def test_elsewhere_playwright_is_asked_once_and_its_failure_is_no_error(computer, monkeypatch, capfd, user):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if user:
        program(computer, "apt-get", "echo must not be asked")
    python = program(computer, "python", 'test "$1" = -c || { echo "asked: $@"; exit 1; }')
    assert suite.ready_browser(str(python)) is None
    said = capfd.readouterr().out
    assert (said.count("asked: -m playwright install chromium"), "must not" in said) == (1, False)


def test_a_chosen_browser_that_is_not_there_is_replaced_by_none(computer, monkeypatch, capfd):
    monkeypatch.setenv("ATELIER_CHROMIUM", str(computer / "nowhere"))
    assert suite.ready_browser(sys.executable) is None
    assert capfd.readouterr().out == ""


def test_without_a_browser_ci_fails_before_any_test(checkout):
    (checkout / "test_one.py").write_text("def test_one():\n    pass\n")
    said = start(checkout, "test", env={**os.environ, "ATELIER_CHROMIUM": "/nowhere/chromium", "CI": "true"})
    assert (said.returncode, suite.NO_BROWSER in said.stderr, "passed" in said.stdout) == (2, True, False)


# --- setting up and mending ------------------------------------------------------------------------------------------

PROBE = "atelier-probe>=1,<2"  # a package only our own wheel folder has, so that no Python here can have it already


def make_wheel(folder: Path, name: str, version: str) -> None:
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{module}.py", f"__version__ = '{version}'\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        files = [f"{module}.py", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD"]
        wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in files))


class Bench:
    """A checkout whose packages come from a folder of tiny wheels."""

    def __init__(self, folder: Path) -> None:
        (wheels := folder / "wheels").mkdir()
        for wheel in ["torch 2.13.0", "torch 2.14.0", "atelier-probe 1.4", "atelier-probe 2.0", "atelier-more 1.0"]:
            make_wheel(wheels, *wheel.split())
        self.root = make_checkout(folder, [TORCH, PROBE])
        self.venv = self.root / ".venv"
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels.as_uri(), "https_proxy": "http://127.0.0.1:9"}
        self.variables = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "TORCH_COMMAND": "", **offline}

    def start(self, **variables: str) -> subprocess.CompletedProcess:
        return start(self.root, "--train", env={**self.variables, **variables})

    def start_twice_at_once(self) -> list[tuple[int, str]]:
        command = [sys.executable, str(self.root / "launch.py"), "--train"]
        both = [subprocess.Popen(command, env=self.variables, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=600)[0] for process in both]
        return [(process.returncode, text) for process, text in zip(both, said, strict=True)]

    def forget(self) -> None:
        """Make the next start set up again."""
        (self.venv / "atelier-trainer-is-ready").unlink(missing_ok=True)

    @property
    def installed(self) -> set[str]:
        """Our tiny packages in .venv, by name and version."""
        facts = {path.name.removesuffix(".dist-info") for path in self.venv.rglob("*.dist-info")}
        return {name for name in facts if name.startswith(("torch-", "atelier_"))}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    bench.first = bench.start_twice_at_once()
    bench.first_installed = bench.installed
    return bench


@pytest.fixture(autouse=True)
def same_requirements(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "bench" in request.fixturenames:
        declare(request.getfixturevalue("bench").root, [TORCH, PROBE])


def test_of_two_starts_at_once_one_sets_up_and_both_train(bench):
    assert [code for code, _ in bench.first] == [7, 7]
    assert sum(text.count("Setting up Atelier") for _, text in bench.first) == 1


def test_the_set_up_installs_the_range_into_venv_and_the_trainer_runs_there(bench):
    assert bench.first_installed == {"torch-2.13.0", "atelier_probe-1.4"}
    pythons = [json.loads(text.splitlines()[-1])["python"] for _, text in bench.first]
    assert [Path(python).parent.parent for python in pythons] == [bench.venv, bench.venv]


def test_a_later_start_sets_nothing_up(bench):
    said = bench.start()
    assert (said.returncode, said.stdout.count("\n")) == (7, 1)


def test_modules_are_compiled_when_first_imported_and_kept_whatever_the_shell_says(bench, checkout):
    assert not list(next(bench.venv.rglob("atelier_probe.py")).parent.glob("__pycache__/atelier_probe*"))
    in_our_venv = json.loads(bench.start(PYTHONDONTWRITEBYTECODE="1").stdout)
    elsewhere = json.loads(start(checkout, "--train", env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}).stdout)
    assert (in_our_venv["compiles"], elsewhere["compiles"]) == (True, False)


def test_a_new_requirement_is_installed_at_the_next_start(bench):
    declare(bench.root, [TORCH, PROBE, "atelier-more>=1,<2"])
    assert bench.start().returncode == 7
    assert "atelier_more-1.0" in bench.installed


def test_a_package_that_was_left_half_written_is_written_again(bench):
    facts, module = next(bench.venv.rglob("atelier_probe-*.dist-info")), next(bench.venv.rglob("atelier_probe.py"))
    (facts / "RECORD").unlink()
    module.unlink()
    bench.forget()
    assert bench.start().returncode == 7
    assert (facts / "RECORD").exists()
    assert module.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there, venv copies Python instead of linking it")
def test_an_environment_whose_python_is_gone_is_made_anew(bench):
    python = bench.venv / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    said = bench.start()
    assert (said.returncode, "creating it again" in said.stdout) == (7, True)
    assert bench.installed == {"torch-2.13.0", "atelier_probe-1.4"}


def test_torch_command_is_what_pip_runs_and_its_torch_stays(bench):
    bench.forget()
    assert bench.start(TORCH_COMMAND="pip install torch==2.14.0").returncode == 7
    assert "torch-2.14.0" in bench.installed


def test_a_set_up_that_fails_says_so_and_is_tried_again(bench):
    declare(bench.root, [TORCH, PROBE, "atelier-nowhere>=1,<2"])
    for said in [bench.start(), bench.start()]:
        assert said.returncode == 2
        assert "No matching distribution found for atelier-nowhere" in said.stderr
        assert "Start again" in said.stderr
    declare(bench.root, [TORCH, PROBE])
    assert "Setting up" in bench.start().stdout  # who knows what the failed one left behind


def locked(bench: Bench, *wheels: str, digest: str = "") -> Path:
    """A lock that names these wheels."""
    lock = bench.root / "assets" / "locks" / "trainer.txt"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for wheel in wheels:
        name, version = wheel.split()
        file = bench.root.parent / "wheels" / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        lines.append(f"{name}=={version} --hash=sha256:{digest or hashlib.sha256(file.read_bytes()).hexdigest()}\n")
    lock.write_text("".join(lines))
    return lock


def test_what_a_lock_names_is_installed_and_nothing_else(bench):
    lock = locked(bench, "atelier-probe 1.4", "atelier-more 1.0")
    try:
        assert bench.start().returncode == 7
        assert {"atelier_probe-1.4", "atelier_more-1.0"} <= bench.installed
        assert "Setting up" not in bench.start().stdout
        locked(bench, "atelier-probe 1.4")
        assert "Setting up" in bench.start().stdout  # a lock that changed is installed
    finally:
        lock.unlink()


def test_a_file_of_another_hash_is_not_installed(bench):
    lock = locked(bench, "atelier-probe 2.0", digest="0" * 64)
    try:
        said = bench.start()
        assert said.returncode == 2
        assert "DO NOT MATCH THE HASHES" in said.stderr
        assert "atelier_probe-2.0" not in bench.installed
    finally:
        lock.unlink()


def entries(stage: str) -> dict[str, list[str]]:
    """A lock's packages with version, by name, each with its file's hashes."""
    text = (launch.ROOT / "assets" / "locks" / f"{stage}.txt").read_text(encoding="utf-8")
    found = {}
    for entry in re.split(r"\n(?=[a-z])", text.partition("\n")[2].strip()):
        pinned = re.match(r"([a-z0-9-]+)==([\w.]+)", entry)
        found[pinned[1]] = [pinned[2], *re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)]
    return found


@pytest.mark.parametrize("stage", ["trainer", "test"])
def test_the_locks_name_every_requirement_in_its_range_with_hashes_and_leave_pytorch_to_the_machine(stage):
    held = entries(stage)
    assert all(len(facts) > 1 for facts in held.values())
    assert not {"torch", "triton"} & held.keys()
    assert not [name for name in held if name.startswith("nvidia-")]
    for requirement in (one for wanted in launch.stages(stage == "test") for one in wanted.requirements):
        name = launch.name_of(requirement)
        if name != "torch":
            least, below = (launch.numbers(bound) for bound in re.findall(r"[\d.]+(?=,|$)", requirement))
            assert least <= launch.numbers(held[name][0]) < below, requirement


def test_compiled_packages_are_locked_for_every_system():
    held = entries("trainer")
    for name in ("numpy", "pillow", "pydantic-core", "safetensors", "tokenizers", "pyyaml"):
        assert len(held[name]) > 8, name  # wheels of Linux, macOS and Windows, and of several Pythons
