"""What would harm a training on a data set: which images, why it matters, and a fix.

Images are only ever read. A fix is an edit of the folder's overlay, so it can be undone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from trainer.contract.home import Home
from trainer.contract.settings.config import TrainConfig
from trainer.dataset.captions import Item
from trainer.dataset.overlay import Entry, entries_of
from trainer.dataset.problems import Problem, base_of, relative
from trainer.doctor.captions import caption_signs
from trainer.doctor.cases import CASES, Level, Sign
from trainer.doctor.images import image_signs
from trainer.doctor.kept import folders_of
from trainer.doctor.masks import mask_problems

NAMED = 5  # images that a message names, the rest is counted
ENOUGH = {"style": 20, "character": 10, "concept": 10}  # images recommended for a goal
IMBALANCE = 4.0  # times as many views
ORDER: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding(Problem):
    """One thing worth knowing about a data set."""

    level: Level = "warning"  # note: nothing is wrong
    folder: Path | None = None  # whose overlay the fix changes
    fix: Mapping[str, Callable[[Entry], Entry]] | None = None  # for `overlay.change(home, folder, fix)`


def examine(
    items: Sequence[Item],
    problems: Sequence[Problem],
    config: TrainConfig,
    home: Home,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Returns what of `items` would harm a training, most severe first; excluded images are skipped.

    Args:
        items: The images, as returned by `scan.look`.
        problems: What it noticed beside them.
        config: The training: goal, resolution, trigger word, token limit.
        home: Holds the overlays, and what was measured before.
        progress: Called from this thread with the images done and the total.
    """
    folders = _Folders(config, home)
    trained = [item for item in items if not folders.entry(item.path).left_out]
    signs = [
        *image_signs(trained, config, home, progress),
        *caption_signs(trained, config),
        *_set_signs(trained, config),
    ]
    problems = [*problems, *mask_problems(trained, config, home)]
    found = [*_known(problems, folders), *_findings(signs, folders)]
    return sorted(found, key=lambda finding: ORDER.index(finding.level))


class _Folders:
    """The folders of a data set, and what their overlays say."""

    def __init__(self, config: TrainConfig, home: Home) -> None:
        folders = folders_of(config)
        self.base = base_of(config.dataset.folders)
        self.place = folders.place
        self._entries = {root: entries_of(home, root) for root in folders.roots}

    def entry(self, image: Path) -> Entry:
        """What the overlay says of an image so far."""
        place = self.place(image)
        return self._entries[place[0]].get(place[1], Entry()) if place else Entry()


def _known(problems: Sequence[Problem], folders: _Folders) -> list[Finding]:
    """What the reader noticed, with a reason and a fix where there is one."""
    found = []
    for problem in problems:
        case = CASES.get(problem.code)
        trained = [path for path in problem.images if not folders.entry(path).left_out]
        if problem.images and not trained:
            continue
        groups = _by_folder([Sign(problem.code, path) for path in trained], folders) or {None: []}
        for folder, signs in groups.items():
            finding = Finding(
                problem.code,
                problem.message,
                problem.hint,
                tuple(sign.image for sign in signs if sign.image),
                problem.why or (case.why if case else ""),
                case.level if case else "warning",
                folder,
                _fix(signs, folders),
            )
            found.append(finding)
    return found


def _findings(signs: Iterable[Sign], folders: _Folders) -> list[Finding]:
    """Signs of one kind as one finding for each folder."""
    kinds: dict[tuple[str, str], list[Sign]] = {}
    for sign in signs:
        kinds.setdefault((sign.code, sign.subject), []).append(sign)
    found = []
    for (code, subject), same in kinds.items():
        case = CASES[code]
        title = case.title.format(subject=subject)
        for folder, here in _by_folder(same, folders).items():
            shown = dict.fromkeys(path for sign in here for path in (*sign.beside, sign.image) if path)
            message = f"{title}: {_named(here, folders.base)}." if shown else f"{title}."
            fix = _fix(here, folders)
            found.append(Finding(code, message, case.hint, tuple(shown), case.why, case.level, folder, fix))
    return found


def _by_folder(signs: Sequence[Sign], folders: _Folders) -> dict[Path | None, list[Sign]]:
    """The signs of each folder; those of the whole set, or of images that lie elsewhere, under None."""
    groups: dict[Path | None, list[Sign]] = {}
    for sign in signs:
        place = folders.place(sign.image) if sign.image else None
        groups.setdefault(place[0] if place else None, []).append(sign)
    return groups


def _named(signs: Sequence[Sign], base: Path) -> str:
    """The first images by their path relative to `base`, and how many more."""
    images = [(relative(sign.image, base), sign.detail) for sign in signs if sign.image]
    names = [f"{name} ({detail})" if detail else name for name, detail in images]
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _fix(signs: Sequence[Sign], folders: _Folders) -> dict[str, Callable[[Entry], Entry]] | None:
    """Returns what fixes these signs, as edits of the overlay's entries."""
    changes: dict[str, Callable[[Entry], Entry]] = {}
    for sign in signs:
        place = folders.place(sign.image) if sign.image else None
        if sign.image is None or place is None:
            continue
        case = CASES.get(sign.code)
        if sign.fix is not None:
            changes[place[1]] = sign.fix
        elif case is not None and case.leave_out:
            changes[place[1]] = partial(replace, left_out=True)
    return changes or None


def _set_signs(items: Sequence[Item], config: TrainConfig) -> list[Sign]:
    """What the numbers of images say."""
    signs = []
    wanted = ENOUGH[config.goal]
    if 0 < len(items) < wanted:
        signs.append(
            Sign("few_pictures", subject=f"{len(items)}; for a {config.goal}, {wanted} or more are recommended")
        )
    shares: dict[int, float] = {}
    for item in items:
        shares[item.concept] = shares.get(item.concept, 0.0) + item.weight
    most = max(shares.values(), default=0.0)
    for concept, views in sorted(shares.items()):
        if views * IMBALANCE < most:
            members = [item.path for item in items if item.concept == concept]
            subject = f"one view in {most / views:.3g}"
            signs += [Sign("concept_imbalance", path, subject=subject) for path in members]
    return signs
