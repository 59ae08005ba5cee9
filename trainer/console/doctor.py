"""The doctor in the console: what is wrong with an image folder, its fixes, and a mended copy."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from trainer.contract.errors import InvalidSettings
from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.dataset.export import export
from trainer.dataset.overlay import change, undo, with_overlays
from trainer.dataset.scan import images_of
from trainer.doctor.examine import Finding, examine

NAMED = 5  # images that were changed back
MARKS = {"error": "[bold red]✗[/]", "warning": "[yellow]![/]", "note": "[dim]·[/]"}


def checkup(flags: argparse.Namespace, config: TrainConfig, home: Home, console: Console) -> int:
    """Do what the flags say of an image folder; 1 if a training would fail on it or lose images."""
    if flags.export_dataset:
        return _export(flags.export_dataset, flags.to, config.dataset.folder_repeats, home, console)
    folder = Path(flags.doctor).expanduser().resolve()
    if flags.undo:
        return _take_back(folder, home, console)
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"images": str(folder)})})
    count, findings = _look(config, home, console)
    if flags.fix:
        return _mend(findings, flags.fix, lambda: _look(config, home, console)[1], home, console)
    console.print(f"{count} images in {folder}, for a {config.goal} at {config.dataset.resolution} px.", markup=False)
    _report(findings, console)
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _take_back(folder: Path, home: Home, console: Console) -> int:
    """Undo the last change."""
    change = undo(home, folder)
    if change is None:
        console.print("There is nothing to undo.")
        return 0
    what, names = change.what or "a change", change.names
    said = f"Taken back: {what}, for {len(names)} images: {', '.join(names[:NAMED])}{', …' * (len(names) > NAMED)}."
    console.print(said, markup=False, soft_wrap=True)
    return 0


def _look(config: TrainConfig, home: Home, console: Console) -> tuple[int, list[Finding]]:
    """How many images there are, and what is wrong with them, as things stand now."""
    config = config.model_copy(update={"dataset": with_overlays(config.dataset, home)})
    items, problems = images_of(config.dataset)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Looking at the images", total=len(items))
        return len(items), examine(items, problems, config, home, lambda done, _: bar.update(task, completed=done))


def _report(findings: Sequence[Finding], console: Console) -> None:
    """Each finding in three lines: what and which, why, what helps."""
    for finding in findings:
        console.print(f"{MARKS[finding.level]} [bold]{finding.code}[/]  ", end="")
        console.print(finding.message, markup=False, soft_wrap=True)
        console.print(
            f"    {finding.why}" if finding.why else "", style="dim", markup=False, end="\n" if finding.why else ""
        )
        console.print(f"    → {finding.hint}", markup=False, soft_wrap=True)
    fixable = list(dict.fromkeys(finding.code for finding in findings if finding.fix))
    if fixable:
        console.print(f"Mend here, undoably and without touching a file: --fix {' '.join(fixable)}", markup=False)
    if not findings:
        console.print("Nothing to complain of.", style="green")


def _mend(
    findings: Sequence[Finding], codes: Sequence[str], again: Callable[[], list[Finding]], home: Home, console: Console
) -> int:
    """Change the overlays as the findings of these codes propose, and look `again` after each code.

    One mend may be another's: of two images alike the blurred one is left out, and no copy is left.
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
                console.print(f"{code}: {len(names)} images mended in {finding.folder}.", markup=False)
    console.print("Take it back with --undo, one change at a time.")
    return 0


def _export(folder: str, target: str | None, folder_repeats: bool, home: Home, console: Console) -> int:
    if not target:
        raise InvalidSettings("No folder to write to.", hint="Add --to NEW, a folder that is not there yet.")
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Copying", total=None)

        def told(done: int, of: int) -> None:
            """Move the bar."""
            bar.update(task, completed=done, total=of)

        count = export(home, Path(folder), Path(target), told, folder_repeats=folder_repeats)
    console.print(f"{count} images with their captions in {Path(target).resolve()}.", markup=False, soft_wrap=True)
    return 0
