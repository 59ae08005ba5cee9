"""The doctor in the console: what is wrong with a picture folder, its fixes, and a mended copy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from trainer.contract.captions import pictures_of
from trainer.contract.doctor import Finding, examine
from trainer.contract.doctorexport import export
from trainer.contract.errors import InvalidSettings
from trainer.contract.home import Home
from trainer.contract.overlay import change, existing_overlay, undo
from trainer.contract.settings import DatasetSettings, TrainConfig

MARKS = {"error": "[bold red]✗[/]", "warning": "[yellow]![/]", "note": "[dim]·[/]"}


def checkup(flags: argparse.Namespace, config: TrainConfig, home: Home, console: Console) -> int:
    """Do what the flags say of a picture folder; 1 if a training would fail on it or lose pictures."""
    if flags.export_dataset:
        return _export(flags.export_dataset, flags.to, home, console)
    folder = Path(flags.doctor).expanduser().resolve()
    if flags.undo:
        names = undo(home, folder)
        said = (
            f"Taken back for {len(names)} pictures: {', '.join(names[:5])}." if names else "There is nothing to undo."
        )
        console.print(said, markup=False, soft_wrap=True)
        return 0
    config = config.model_copy(update={"dataset": _with_overlays(config.dataset, folder, home)})
    items, problems = pictures_of(config.dataset)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Looking at the pictures", total=len(items))
        findings = examine(items, problems, config, home, lambda done, _: bar.update(task, completed=done))
    if flags.fix:
        return _mend(findings, flags.fix, home, console)
    console.print(
        f"{len(items)} pictures in {folder}, for a {config.goal} at {config.dataset.resolution} px.", markup=False
    )
    _report(findings, console)
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _with_overlays(dataset: DatasetSettings, folder: Path, home: Home) -> DatasetSettings:
    """The settings for this folder, with what was changed here about it and its concepts."""
    concepts = [
        concept.model_copy(update={"captions": concept.captions or _overlay(home, Path(concept.images))})
        for concept in dataset.concepts
    ]
    update = {
        "images": str(folder),
        "captions": dataset.captions or _overlay(home, folder),
        "concepts": tuple(concepts),
    }
    return dataset.model_copy(update=update)


def _overlay(home: Home, folder: Path) -> str:
    return str(existing_overlay(home, folder) or "")


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


def _mend(findings: Sequence[Finding], codes: Sequence[str], home: Home, console: Console) -> int:
    """Change the overlays as the findings of these codes propose."""
    fixes = {finding.code for finding in findings if finding.fix}
    unknown = [code for code in codes if code not in fixes]
    if unknown:
        raise InvalidSettings(
            f"There is nothing to fix called {', '.join(unknown)}.",
            hint=f"Fixes are proposed for: {', '.join(sorted(fixes)) or 'nothing'}.",
        )
    for finding in findings:
        if finding.code in codes and finding.fix and finding.folder:
            change(home, finding.folder, finding.fix, finding.code)
            console.print(f"{finding.code}: {len(finding.fix)} pictures mended in {finding.folder}.", markup=False)
    console.print("Take it back with --undo, one change at a time.")
    return 0


def _export(folder: str, target: str | None, home: Home, console: Console) -> int:
    if not target:
        raise InvalidSettings("No folder to write to.", hint="Add --to NEW, a folder that is not there yet.")
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Copying", total=None)
        count = export(home, Path(folder), Path(target), lambda done, of: bar.update(task, completed=done, total=of))
    console.print(f"{count} pictures with their captions in {Path(target).resolve()}.", markup=False, soft_wrap=True)
    return 0
