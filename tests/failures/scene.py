"""Where failures are brought about: consoles, trainers and pages as people have them, in this very process."""

from __future__ import annotations

import contextlib
import inspect
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from rich.console import Console
from warm import asking

import app.api
import app.dataset.checks
import app.ui
import trainer.__main__
from app.kit.wording import html_of, on_page
from app.live import parts
from app.live.monitor import Watch
from failures.book import Seen
from trainer.console import doctor, progress, train
from trainer.console.main import main
from trainer.contract.errors import TrainerError
from trainer.contract.events import RunFailed, Warned, read_events
from trainer.contract.home import CHECKOUT, Home
from trainer.contract.settings.config import TrainConfig
from trainer.contract.wording import for_console
from trainer.dataset.problems import Problem
from trainer.dataset.views import Plan
from trainer.doctor.examine import Finding, examine
from trainer.engine import loop
from trainer.runs import process
from trainer.runs.folder import RunFolder
from trainer.runs.process import Group

ERROR = re.compile(r"^Error \((\w+)\): (.*)\n  → (.*)\n  More on the page: /help#(\w+)$", re.MULTILINE)
FINDING = re.compile(r"^[✗!·] (\w+)  (.*)\n(?:    ([^→\n].*)\n)?    → (.*)$", re.MULTILINE)
CARD = re.compile(r'role="alert">(.*)<p>(.*) (?:<a [^>]*>[^<]+</a>)?</p></div>')
CHANGING = (  # what differs from time to time, and what stands for it in the list
    (r"-\d{8}-\d{6}(?:-\d+)?", "-20261121-231500"),
    (r"process \d+", "process 4321"),
    (r"path of \d+ characters", "path of 400 characters"),
    (r"\(by digest\): [\d, ]+", "(by digest): 2838678815, 1094263310"),
    (r"Port \d+ is", "Port 8000 is"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:29500"),
    (r"PyTorch [\d.]+(?:\+\w+)?", "PyTorch 2"),
)


class Scene:
    """One case's own home and folders."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        new_run: Callable[..., RunFolder],
        places: dict[Path, str],
    ) -> None:
        self.folder, self.patch, self._capsys, self.new_run = folder, monkeypatch, capsys, new_run
        self.home = Home(folder / "home")
        self._places = {**places, folder: "/home/ana", CHECKOUT: "/home/ana/atelier"}
        self._places[Path(sys.executable)] = "/home/ana/atelier/.venv/bin/python"
        self.patch.setenv("COLUMNS", "10000")  # nothing is wrapped
        self._errors: list[TrainerError] = []  # as they were written, before a side words them
        plain = TrainerError.__init__

        def noted(error: TrainerError, /, *words: str, **parameters: Any) -> None:
            self._errors.append(error)
            plain(error, *words, **parameters)

        self.patch.setattr(TrainerError, "__init__", noted)

    def images(self, count: int = 5, **files: str | bytes) -> Path:
        """A folder of drawn images with captions, and files beside them; `__` in a name stands for its dot."""
        import tiny

        folder = tiny.images(self.folder / "pictures", count)
        for name, content in files.items():
            path = folder / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    def console(self, *arguments: object, main: Callable[[list[str]], int] = main) -> Seen:
        """What a console program says that ends in an error."""
        code = main([str(argument) for argument in arguments])
        return self._shown(code)

    def check(self, *flags: object) -> Seen:
        """What the console says before a training on good images and the built-in model, with these flags."""
        given = ["--preset", "pocket-style", "--home", self.home.root, "--images", self.images(), *flags]
        return self.console(*given, "--check")

    def noted(self, problem: str, *flags: object) -> Seen:
        """What the console notes in the plan of a training that is possible with these flags."""
        found: list[Problem] = []
        show_plan = train.show_plan

        def shown(config: TrainConfig, made: Plan, problems: list[Problem], *rest: Any) -> None:
            found.extend(problems)
            show_plan(config, made, problems, *rest)

        with self.patch.context() as patch:
            patch.setattr(train, "show_plan", shown)
            given = ["--preset", "pocket-style", "--home", self.home.root, "--images", self.images(), *flags, "--check"]
            assert main([str(one) for one in given]) == 0
        output = " ".join(self._output().split())
        (one,) = (each for each in found if each.code == problem)
        assert for_console(f"Note: {one.message} {one.hint}") in output
        return self.seen(problem, on_page(one.message, "en"), on_page(one.hint, "en"))

    def refused(self, *flags: object, preset: str = "pocket-style", **settings: Any) -> Seen:
        """What console and page say of settings, by their names with `__` for the dot: one thing, each in its words."""
        named = {place.replace("__", "."): value for place, value in settings.items()}
        named |= {place: str(value) for place, value in named.items() if isinstance(value, Path)}
        if "dataset.images" not in named:
            named["dataset.images"] = str(self.images())
        given = [part for place, value in named.items() for part in (f"--{place}", str(value))]
        seen = self.console("--preset", preset, "--home", self.home.root, *given, *flags, "--check")
        self._page_says(seen, preset, named)
        return seen

    def started(self) -> Seen:
        """What the console and the page say of a training that the system does not let begin: the same."""
        images = self.images()
        seen = self.console("--preset", "pocket-style", "--home", self.home.root, "--images", images)
        self._page_says(seen, "pocket-style", {"dataset.images": str(images)})
        return seen

    def _page_says(self, seen: Seen, preset: str, named: dict[str, Any]) -> None:
        """The page's answer to Train, with these settings, is what was seen."""
        start = app.api._endpoint(app.api._start(self.home))
        places = {place.replace(".", "_"): value for place, value in named.items()}
        arguments = [preset if name == "preset" else places.get(name) for name in inspect.signature(start).parameters]
        with pytest.raises(gr.Error) as toast:
            start(*arguments)
        shown = f"{seen.message} {seen.hint}"
        assert self._tidy(toast.value.message) in (shown, shown.replace("'", ""))  # a flag's number is a text

    def train(self, run: RunFolder, code: str, expected: int = 2) -> Seen:
        """What the console and the page say of a training that fails, or that a warning is about."""

        self._train_here()
        assert train.follow(run, Group.of(run), Console(highlight=False)) == expected
        output = self._output()
        written = [event for event in read_events(run.events_file)[0] if isinstance(event, RunFailed | Warned)]
        kind = RunFailed if expected else Warned
        (event, *_) = [one for one in written if one.code == code and isinstance(one, kind)] or pytest.fail(
            str(written)
        )
        assert for_console(event.message) in output
        assert for_console(event.hint) in output
        watch = Watch(run)
        watch.tick()
        watch.view.warnings = watch.view.warnings[-1:] if isinstance(event, RunFailed) else [event]
        card = parts.notices(watch, "en")
        assert f"{html_of(event.message, 'en')}<p>{html_of(event.hint, 'en')} " in card
        log = run.log_file.read_text()
        assert ("Traceback" in log) == isinstance(event, RunFailed), "the technical story is in log.txt"
        return self.seen(event.code, on_page(event.message, "en"), on_page(event.hint, "en"))

    def deleted(self, run: RunFolder) -> Seen:
        """What the console says of a training whose folder vanishes."""
        self._train_here()
        return self.console("--resume", run.path.name, "--home", run.home.root)

    def quiet(self, run: RunFolder) -> None:
        """A training that goes well."""
        assert trainer.__main__.main([str(run.path)]) == 0
        self._output()

    def stopped(self, run: RunFolder) -> None:
        """A training that is stopped after its first step."""
        with self.patch.context() as patch:
            patch.setattr(loop, "rest", asking("stop"))
            self.quiet(run)

    def _train_here(self) -> None:
        """Trainers are of this process; what they say goes to their log all the same."""

        def start_here(run: RunFolder, group: Group) -> SimpleNamespace:
            with run.log_file.open("a") as log, contextlib.redirect_stderr(log):
                ended = trainer.__main__.main([str(run.path), *group.arguments()])
            return SimpleNamespace(poll=lambda: ended, returncode=ended)

        self.patch.setattr(process, "start", start_here)
        self.patch.setattr(progress, "POLL_SECONDS", 0.0)

    def card(self, html: str, code: str) -> Seen:
        """What a card of the page says."""
        ((message, hint),) = CARD.findall(html) or pytest.fail(html)
        assert "⟦" not in html
        return self.seen(code, unescape(message), unescape(hint))

    def doctor(self, folder: Path, code: str, *flags: object, page: bool = True, **asked: Any) -> Seen:
        """What the doctor says of a folder, in the console and on the page: the same."""
        given = ["--preset", "sd15-style", "--home", self.home.root, "--doctor", folder, *flags]
        findings: list[Finding] = []

        def examined(*arguments: Any) -> list[Finding]:
            findings[:] = examine(*arguments)
            return findings

        with self.patch.context() as patch:
            patch.setattr(doctor, "examine", examined)
            main([str(one) for one in given])
        output = self._output()
        (finding, *_) = [one for one in findings if one.code == code] or pytest.fail(output)
        shown = (code, *(for_console(text) for text in (finding.message, finding.why, finding.hint)))
        assert shown in FINDING.findall(output)
        message, why, hint = (on_page(text, "en") for text in (finding.message, finding.why, finding.hint))
        if not page:
            return self.seen(code, message, hint, why)
        check = next(one for one in app.dataset.checks.answers(self.home) if one.__name__ == "check")
        question = {"folder": str(folder), "preset": "sd15-style", "start": True, **asked}
        said = check(question, None)
        while said["state"] == "running":
            time.sleep(0.01)
            said = check(question, None)
        assert (message, why, hint) in [(one["message"], one["why"], one["hint"]) for one in said["findings"]]
        return self.seen(code, message, hint, why)

    @contextlib.contextmanager
    def refusing(self, number: int, said: str, below: Path | None = None) -> Iterator[None]:
        """The system refuses to make files and folders in the home."""
        import os
        import tempfile

        def refuse(plain: Callable[..., Any], place: Callable[..., Any]) -> Callable[..., Any]:
            def asked(*arguments: Any, **named: Any) -> Any:
                where = Path(place(*arguments, **named))
                if where.is_relative_to(below or self.home.root):
                    raise OSError(number, said, str(where))
                return plain(*arguments, **named)

            return asked

        with self.patch.context() as patch:
            patch.setattr(os, "mkdir", refuse(os.mkdir, lambda path, *_, **__: path))
            made = refuse(tempfile.mkstemp, lambda *_, **named: named.get("dir") or "/nowhere")
            patch.setattr(tempfile, "mkstemp", made)
            yield

    def _shown(self, ended: int) -> Seen:
        """The one error of a console's output."""
        output = self._output()
        assert ended == 2, output
        ((code, message, hint, linked),) = ERROR.findall(output) or pytest.fail(output)
        assert linked == code
        written = {for_console(text): text for error in self._errors for text in (error.message, error.hint)}
        return self.seen(code, on_page(written.get(message, message), "en"), on_page(written.get(hint, hint), "en"))

    def _output(self) -> str:
        """What the console has shown; nothing technical."""
        captured = self._capsys.readouterr()
        output = captured.out + captured.err
        assert "Traceback" not in output, output
        return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", output)

    def seen(self, code: str, message: str, hint: str, why: str = "") -> Seen:
        """What was shown, with usual locations and numbers."""
        assert "⟦" not in f"{message}{hint}{why}"
        return Seen(code, *(self._tidy(text) for text in (message, hint, why)))

    def _tidy(self, text: str) -> str:
        """A text with the places and numbers of this time replaced."""
        for place in sorted(self._places, key=lambda one: -len(str(one))):
            text = text.replace(str(place), self._places[place])
        for pattern, usual in CHANGING:
            text = re.sub(pattern, usual, text)
        return text


def copied(folder: Path, target: Path) -> Path:
    """A folder of its own to be damaged."""
    return Path(shutil.copytree(folder, target))
