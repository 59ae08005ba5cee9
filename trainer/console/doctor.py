"""Find and fix what would harm a training.

The folder itself is never changed. Every setting of `train` is accepted too: images are checked for it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from trainer.console.bar import Bar
from trainer.console.flags import Flags, Parser, add_settings, given
from trainer.contract.errors import InvalidSettings
from trainer.contract.home import Home, user_path
from trainer.contract.settings.config import TrainConfig
from trainer.contract.wording import for_console
from trainer.dataset.overlay import change, undo, with_overlays
from trainer.dataset.scan import images_of
from trainer.doctor.examine import Finding, examine

USAGE = "DIR [--fix CODE …] [--undo]"
SHOWN = 5  # names of images that were changed back
MARKS = {"error": "[bold red]✗[/]", "warning": "[yellow]![/]", "note": "[dim]·[/]"}


def add_flags(parser: Parser, folder: str = "doctor") -> None:
    """Add the flags of the doctor; `folder` is the flag before the folder, if not simply the first word."""
    parser.add_argument(folder, type=user_path, metavar="DIR", help="Folder with the images.")
    if folder == "doctor":
        add_settings(parser, listed=False)
    parser.add_argument("--fix", metavar="CODE", nargs="+", action="extend", help="Fix these findings.")
    parser.add_argument("--undo", action="store_true", help="Undo the last change.")


def run(flags: Flags, console: Console) -> int:
    """Check, fix or undo; returns 1 if a training would fail on the folder or lose images."""
    home = Home.find(flags.get("home"))
    config = given(flags, home)[0]
    folder = flags["doctor"].resolve()
    if flags.get("undo"):
        return _undo(folder, home, console)
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"images": str(folder)})})
    count, findings = _look(config, home, console)
    if flags.get("fix"):
        return _fix(findings, flags["fix"], lambda: _look(config, home, console)[1], home, console)
    console.print(f"{count} images in {folder}, for a {config.goal} at {config.dataset.resolution} px.", markup=False)
    _report(findings, console)
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _undo(folder: Path, home: Home, console: Console) -> int:
    change = undo(home, folder)
    if change is None:
        console.print("There is nothing to undo.")
        return 0
    what, names = change.what or "a change", change.names
    said = f"Undone: {what}, for {len(names)} images: {', '.join(names[:SHOWN])}{', …' * (len(names) > SHOWN)}."
    console.print(said, markup=False, soft_wrap=True)
    return 0


def _look(config: TrainConfig, home: Home, console: Console) -> tuple[int, list[Finding]]:
    """Returns how many images there are, and what is wrong with them now."""
    config = config.model_copy(update={"dataset": with_overlays(config.dataset, home)})
    items, problems = images_of(config.dataset)
    with Bar(console, patience=5) as bar:

        def show(done: int, total: int) -> None:
            """Move the bar."""
            bar.show("Checking the images", done, total)

        return len(items), examine(items, problems, config, home, show)


def _report(findings: Sequence[Finding], console: Console) -> None:
    """Print each finding in two or three lines: what and which, why, what helps."""
    for finding in findings:
        console.print(f"{MARKS[finding.level]} [bold]{finding.code}[/]  ", end="")
        console.print(for_console(finding.message), markup=False, soft_wrap=True)
        if finding.why:
            console.print(f"    {for_console(finding.why)}", style="dim", markup=False)
        console.print(f"    → {for_console(finding.hint)}", markup=False, soft_wrap=True)
    fixable = list(dict.fromkeys(finding.code for finding in findings if finding.fix))
    if fixable:
        console.print(f"Fix here, with undo and without touching a file: --fix {' '.join(fixable)}", markup=False)
    if not findings:
        console.print("No problems found.", style="green")


def _fix(
    findings: Sequence[Finding], codes: Sequence[str], again: Callable[[], list[Finding]], home: Home, console: Console
) -> int:
    """Change the overlays as the findings of these codes propose, and look `again` after each code.

    One fix may do for another: of two near-duplicates the blurred one is excluded, and no duplicate is left.
    """
    fixes = {finding.code for finding in findings if finding.fix}
    unknown = [code for code in codes if code not in fixes]
    if unknown:
        raise InvalidSettings(
            f"There is nothing to fix called {', '.join(unknown)}.",
            hint=f"Fixes are proposed for: {', '.join(sorted(fixes)) or 'nothing'}.",
        )
    for number, code in enumerate(dict.fromkeys(codes)):
        for finding in findings if number == 0 else again():
            if finding.code == code and finding.fix and finding.folder:
                names = change(home, finding.folder, finding.fix, code)
                console.print(f"{code}: {len(names)} images fixed in {finding.folder}.", markup=False)
    console.print("--undo undoes it, one change at a time.")
    return 0
