"""What the doctor finds in the image folder, looked for beside the page, and its fixes."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from app.dataset.folder import ImageFolder
from app.dataset.grid import GridData, made
from app.dataset.image import AsTrained
from app.kit.questions import Answer, answer
from app.kit.text import say
from app.kit.wording import on_page
from trainer.contract.errors import isolated
from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.dataset.errors import DatasetError
from trainer.dataset.overlay import existing_overlay, overlay_file
from trainer.dataset.problems import uncalled
from trainer.dataset.scan import look
from trainer.doctor.examine import Finding, examine

KEPT = 4  # checks whose findings are remembered
AT_ONCE = 400  # images that are checked without being asked


class FindingData(TypedDict):
    """One finding."""

    level: str
    message: str
    why: str
    hint: str
    names: list[str]
    fix: int  # images that its fix changes; 0: there is none


class CheckData(TypedDict):
    """How far the check is, and what it found."""

    state: str  # "idle", "running", "done" or "failed"
    done: int
    of: int
    error: str
    findings: list[FindingData]
    resolution: int  # px, for which they are judged


class Check:
    """One look at a folder in a thread of its own, which ends early when nobody wants its findings any more."""

    def __init__(self, home: Home, folder: Path, config: TrainConfig, images: int) -> None:
        self.findings: list[Finding] = []
        self.done, self.of, self.error = 0, images, ""
        self.finished = threading.Event()
        self.unwanted = threading.Event()
        self._asked = home, folder, config
        threading.Thread(target=self._run, name="check", daemon=True).start()

    def _run(self) -> None:
        home, folder, config = self._asked
        with isolated("The check", self._fail, hint="Check the images again."):
            repeats = config.dataset.folder_repeats
            items, problems = look(folder, existing_overlay(home, folder), folder_repeats=repeats)
            problems = [uncalled(problem, config.dataset.trigger_word) for problem in problems]
            self.findings = examine(items, problems, config, home, self._report)
        self.finished.set()

    def _report(self, done: int, of: int) -> None:
        if self.unwanted.is_set():
            raise DatasetError("The check was canceled.", hint="Check again.")
        self.done, self.of = done, of

    def _fail(self, _code: str, message: str, hint: str) -> None:
        self.error = f"{message} {hint}"

    @property
    def state(self) -> str:
        """Running, done or failed."""
        return "running" if not self.finished.is_set() else "failed" if self.error else "done"


@dataclass
class Checks:
    """The checks of this server, each by everything its findings depend on."""

    home: Home
    known: dict[tuple[object, ...], Check] = field(default_factory=dict)
    followed: set[Path] = field(default_factory=set)  # folders that were checked, and are again with every change
    using: threading.Lock = field(default_factory=threading.Lock)

    def of(self, images: ImageFolder, config: TrainConfig, *, start: bool = False, again: bool = False) -> Check | None:
        """The check of this folder as it is now, if there is one or one is to be started.

        A folder that was checked is checked again after every change; an unfinished check of its old state is canceled.

        Args:
            images: The folder.
            config: What it is to be trained for.
            start: Begin one, if there is none.
            again: And where the last one failed.
        """
        folder = images.folder
        key = (folder, _version(images), config.model_dump_json())
        with self.using:
            known = self.known.get(key)
            if known is not None and not (again and known.state == "failed"):
                return known
            if not (start or again or folder in self.followed):
                return None
            self.followed.add(folder)
            for (other, *_), check in self.known.items():
                if other == folder:
                    check.unwanted.set()
            self.known[key] = Check(self.home, folder, config, len(images.names))
            while len(self.known) > KEPT:
                self.known.pop(next(iter(self.known))).unwanted.set()
            return self.known[key]


class Checked(AsTrained):
    """A question for the findings; `start` begins the check however many images there are."""

    start: bool = False


class Fixed(AsTrained):
    """The finding to fix, by its place in the list."""

    number: int
    message: str  # what it said, so that no other one is fixed


def answers(home: Home) -> list[Answer]:
    """The functions that the script calls for the findings, by their names."""
    checks = Checks(home)

    def check(asked: Checked, tongue: str) -> CheckData:
        """How far the check is; a folder of few images is checked at once."""
        images, config = ImageFolder.of(home, asked.folder, again=False), asked.config(home)
        found = checks.of(images, config, start=len(images.names) <= AT_ONCE, again=asked.start)
        state, error = (found.state, on_page(found.error, tongue)) if found is not None else ("idle", "")
        return {
            "state": state,
            "done": found.done if found is not None else 0,
            "of": found.of if found is not None else len(images.names),
            "error": error,
            "findings": [shown(one, images, tongue) for one in found.findings]
            if found is not None and state == "done"
            else [],
            "resolution": config.dataset.resolution,
        }

    def fix(asked: Fixed, tongue: str) -> GridData:
        """Fix the finding, as one change that can be undone."""
        found = checks.of(ImageFolder.of(home, asked.folder), asked.config(home))
        findings = found.findings if found is not None and found.state == "done" else []
        finding = findings[asked.number] if asked.number < len(findings) else None
        if finding is None or not finding.fix or on_page(finding.message, tongue) != asked.message:
            raise DatasetError("The images have changed since they were checked.", hint="See what is found now.")
        what = say(tongue, "dataset.did.fix", message=asked.message.partition(":")[0])
        return made(home, asked, finding.fix, what, tongue)

    return [answer(Checked, check), answer(Fixed, fix)]


def _version(images: ImageFolder) -> tuple[object, ...]:
    """Identifies this state of the folder and its overlay."""
    overlay = overlay_file(images.home, images.folder)
    changed = overlay.stat().st_mtime_ns if overlay.is_file() else 0
    return images.stamp, changed


def shown(finding: Finding, images: ImageFolder, tongue: str) -> FindingData:
    """Returns one finding, ready for JSON; of its images those that the page shows."""
    known = set(images.names)
    paths = [path.absolute() for path in finding.images]
    names = [path.relative_to(images.folder).as_posix() for path in paths if path.is_relative_to(images.folder)]
    return {
        "level": finding.level,
        "message": on_page(finding.message, tongue),
        "why": on_page(finding.why, tongue),
        "hint": on_page(finding.hint, tongue),
        "names": [name for name in names if name in known],
        "fix": len(finding.fix or ()),
    }
