"""The event protocol, v1: one JSON object per line in `events.jsonl`, and what a screen shows of it.

The trainer appends; everybody else reads. A line is written at once, and a reader consumes whole lines only.
"""

import errno
import hashlib
import os
import threading
import time
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self, overload

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from trainer.contract import summary
from trainer.contract.files import add_line, open_lines
from trainer.contract.ours import FileTooLarge, check, open_plain
from trainer.contract.summary import PIECE
from trainer.contract.units import size as spoken

HEARTBEAT_SECONDS = 10.0
Count = Annotated[int, Field(ge=-(2**53), le=2**53)]  # what a browser counts exactly
Seconds = Annotated[float, Field(ge=-1e10, le=1e10)]  # some 300 years; neither infinite nor NaN
PROTOCOL = 1
LOG_BYTES = 1 << 30  # of a log: 5 million steps
SUMMARIZED = 1 << 20  # bytes of a log from which on a summary is kept, and which may be missing in it


class _Event(BaseModel):
    """Common fields; `t` is Unix seconds UTC, `seq` counts 0, 1, 2… without gaps."""

    model_config = ConfigDict(frozen=True)
    v: Count = PROTOCOL
    seq: Count = -1
    t: Seconds = 0.0


class RunStarted(_Event):
    """A process began to train."""

    type: Literal["run_started"] = "run_started"
    family: str
    base_model: str
    steps_total: Count
    resumed_at: Count
    device: str
    memory_gib: float
    versions: dict[str, str]


class Phase(_Event):
    """Progress outside the steps."""

    type: Literal["phase"] = "phase"
    name: Literal["download", "load", "encode", "protect", "train", "preview", "compare", "caption"]
    done: Count  # images, steps; of a download MiB
    total: Count


class Step(_Event):
    """One optimizer update."""

    type: Literal["step"] = "step"
    step: Count
    epoch: float
    loss: float
    lr: float
    grad_norm: float
    seconds: Seconds
    memory_gib: float


class Sample(_Event):
    """A preview was generated; `file` is relative to the run folder."""

    type: Literal["sample"] = "sample"
    step: Count
    index: Count
    prompt: str
    seed: Count
    file: str


class Checkpoint(_Event):
    """A resumable state was saved; `folder` is relative to the run folder."""

    type: Literal["checkpoint"] = "checkpoint"
    step: Count
    folder: str


class Lora(_Event):
    """A LoRA file was written and verified; `file` is relative to the run folder."""

    type: Literal["lora"] = "lora"
    step: Count
    file: str
    bytes: Count
    sha256: str


class Heartbeat(_Event):
    """Alive, nothing else to say."""

    type: Literal["heartbeat"] = "heartbeat"


class Warned(_Event):
    """Something to know; the run continues."""

    type: Literal["warning"] = "warning"
    code: str
    message: str
    hint: str


class RunFailed(_Event):
    """The run ended with an error; what was saved stays."""

    type: Literal["run_failed"] = "run_failed"
    code: str
    message: str
    hint: str
    phase: str = ""


class RunFinished(_Event):
    """The run ended as requested."""

    type: Literal["run_finished"] = "run_finished"
    reason: Literal["completed", "stopped", "paused"]
    step: Count
    seconds: Seconds
    by_system: bool = False  # stopped by a signal: the system shuts down, a service or container is ended


SCALARS = ("heard", "moved", "seq", "protocol")
FIGURES = tuple(name for name in Step.model_fields if name != "type")
Event = RunStarted | Phase | Step | Sample | Checkpoint | Lora | Heartbeat | Warned | RunFailed | RunFinished
_PARSER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def read_events(path: Path, cursor: int = 0) -> tuple[list[Event], int, int]:
    """Events after byte `cursor`, the new cursor, and how many lines could not be read.

    Only whole lines are consumed. A line of an unknown type or phase was written by another version: it is skipped and
    counts as read. A missing file is an empty one.

    Raises:
        NotOurs: It is no plain file.
        FileTooLarge: It is larger than any run's.
    """
    events: list[Event] = []
    damaged = 0
    while lines := whole_lines(path, cursor):
        more, spoilt = parsed(lines)
        events += more
        damaged += spoilt
        cursor += len(lines)
    return events, cursor, damaged


def whole_lines(path: Path, cursor: int) -> bytes:
    """Returns whole lines from byte `cursor` on, at most 1 MiB; empty if there is none yet.

    What is longer without a line's end is damaged, and comes as it is.
    """
    try:
        with open_plain(path, most=LOG_BYTES) as file:
            file.seek(cursor)
            data = file.read(PIECE)
    except FileNotFoundError:
        return b""
    end = data.rfind(b"\n") + 1
    return data[:end] if end or len(data) < PIECE else data


def parsed(lines: bytes) -> tuple[list[Event], int]:
    """Returns the events of some lines, and how many lines are none."""
    events: list[Event] = []
    damaged = 0
    for line in lines.split(b"\n"):
        if not line.strip():
            continue
        if not line.lstrip().startswith(b"{"):  # found out soon: a damaged log may have millions of them
            damaged += 1
            continue
        try:
            events.append(_PARSER.validate_json(line))
        except ValidationError as error:
            damaged += not _of_another_version(error)
    return events, damaged


def _of_another_version(error: ValidationError) -> bool:
    """Whether a line is whole but of a type, or a phase of a name, that this version does not know."""
    problem, *more = error.errors()
    unknown_phase = problem["loc"] == ("phase", "name") and isinstance(problem["input"], str)
    return not more and (unknown_phase or problem["type"] == "union_tag_invalid")


class EventLog:
    """The trainer's end of the log: appends whole lines, and a heartbeat while there is no other event."""

    def __init__(self, path: Path | None, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._path = path or Path(os.devnull)  # of several processes only the first keeps a log
        self._file = open_lines(path) if path else FileIO(os.devnull, "a")
        # After it was opened: a lacking newline is there now
        self._read = Reader(path).catch_up() if path else None
        self._seq = self._read.view.seq + 1 if self._read else 0
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._closing = threading.Event()
        self._pulse = threading.Thread(target=self._beat, args=(heartbeat_seconds,), daemon=True)

    def __enter__(self) -> Self:
        self._pulse.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._pulse.join()
        self._file.close()
        if self._read is not None:
            self._read.keep_if_due(last=True)

    def write(self, event: Event) -> None:
        """Append one event with its number and time, in a single write.

        Raises:
            OSError: The disk takes no more, or the log was moved or deleted: what is written would be lost with it.
        """
        with self._lock:
            self._append(event)
            if self._read is not None:
                self._read.keep_if_due()

    def _append(self, event: Event) -> None:
        line = event.model_copy(update={"seq": self._seq, "t": time.time()}).model_dump_json(by_alias=True).encode()
        add_line(self._file, line)
        if self._read is not None:
            self._read.size += len(line) + 1
        self._seq += 1
        self._last = time.monotonic()
        if not self._path.exists():
            raise FileNotFoundError(errno.ENOENT, "moved or deleted", str(self._path.parent))

    def _beat(self, every_seconds: float) -> None:
        while not self._closing.wait(every_seconds / 4):
            with self._lock:  # an event that is being written ends the silence
                if time.monotonic() - self._last >= every_seconds:
                    with suppress(OSError):  # a full disk: the next beat tries again, and the training reports it
                        self._append(Heartbeat())


Status = Literal["waiting", "running", "completed", "stopped", "paused", "failed", "interrupted"]


class Steps(Sequence[Step]):
    """A run's steps in 80 bytes each, as figures in one row after the other; as objects they take some 2 kB."""

    def __init__(self, steps: Iterable[Step] = (), figures: "array[float] | None" = None) -> None:
        self._figures = array("d") if figures is None else figures
        for step in steps:
            self.append(step)

    def append(self, step: Step) -> None:
        """Add a step, at once for whoever reads meanwhile."""
        self._figures.extend([getattr(step, name) for name in FIGURES])

    def drop_after(self, step: int) -> None:
        """Remove the steps beyond this one."""
        if any(number > step for number in self.column("step")):
            self._figures = Steps(one for one in self if one.step <= step).figures

    def column(self, name: str) -> "array[float]":
        """Returns one figure of all steps."""
        return self._figures[FIGURES.index(name) :: len(FIGURES)]

    @property
    def figures(self) -> "array[float]":
        """Everything, to be kept."""
        return self._figures

    def __len__(self) -> int:
        return len(self._figures) // len(FIGURES)

    @overload
    def __getitem__(self, place: int) -> Step: ...
    @overload
    def __getitem__(self, place: slice) -> list[Step]: ...
    def __getitem__(self, place: int | slice) -> Step | list[Step]:
        """The step of this number, or a list of several."""
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place] * len(FIGURES)
        return Step.model_validate(dict(zip(FIGURES, self._figures[number : number + len(FIGURES)], strict=True)))

    def __eq__(self, other: object) -> bool:
        return list(self) == (list(other) if isinstance(other, Sequence) else other)

    __hash__ = None  # type: ignore[assignment]


@dataclass
class RunView:
    """What a screen shows of a run: the events so far, folded. Feed it new events in order with `fold`."""

    started: RunStarted | None = None
    ended: RunFinished | RunFailed | None = None
    phase: Phase | None = None
    steps: Steps = field(default_factory=Steps)
    samples: list[Sample] = field(default_factory=list)
    loras: list[Lora] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    heard: float = 0.0  # when the newest event was written, Unix seconds
    moved: float = 0.0  # when the newest was that shows work: all but heartbeats
    seq: int = -1  # the newest event's
    protocol: int = PROTOCOL  # the newest of any event

    def __post_init__(self) -> None:
        self.steps = self.steps if isinstance(self.steps, Steps) else Steps(self.steps)

    def fold(self, events: list[Event]) -> Self:
        """Add new events; a resumed run drops what it showed beyond the step it resumes at."""
        for event in events:
            self.heard, self.seq, self.protocol = event.t, event.seq, max(self.protocol, event.v)
            self.moved = self.moved if isinstance(event, Heartbeat) else event.t
            match event:
                case RunStarted():
                    self.started, self.ended = event, None
                    self._drop_after(event.resumed_at)
                case Phase():
                    self.phase, self.ended = event, None  # a resumed process loads: its earlier end is over
                case RunFinished() | RunFailed():
                    self.ended = event
                case Step():
                    self.steps.append(event)
                case Sample():
                    self.samples.append(event)
                case Checkpoint():
                    self.checkpoints.append(event)
                case Lora():
                    self.loras.append(event)
                case Warned():
                    self.warnings.append(event)
        return self

    def status(self, alive: bool) -> Status:
        """The run's state; `alive` says whether its process is."""
        match self.ended:
            case RunFinished(reason=reason):
                return reason
            case RunFailed():
                return "failed"
        if alive:
            return "running"
        return "interrupted" if self.started else "waiting"

    @property
    def diverged(self) -> Warned | None:
        """The warning that the LoRA is worse than the base model without it, which belongs to the result."""
        return next((warned for warned in self.warnings if warned.code == "diverged"), None)

    def _drop_after(self, step: int) -> None:
        self.steps.drop_after(step)
        self.samples = [s for s in self.samples if s.step <= step]
        self.checkpoints = [c for c in self.checkpoints if c.step <= step]

    def words(self) -> summary.Words:
        """Returns all but the steps, ready for JSON: events that give this view when they are folded again."""
        lists = [*self.samples, *self.loras, *self.checkpoints, *self.warnings]
        events = [event for event in (self.started, self.phase, *lists, self.ended) if event is not None]
        scalars = {name: getattr(self, name) for name in SCALARS}
        return {"events": [event.model_dump(mode="json") for event in events], **scalars}

    @classmethod
    def of_words(cls, words: summary.Words, figures: "array[float]") -> Self:
        """Returns the view that had these words and steps.

        Raises:
            ValueError: There is none.
        """
        view = cls().fold([_PARSER.validate_python(event) for event in words["events"]])
        view.steps = Steps(figures=figures)
        view.heard, view.moved = float(words["heard"]), float(words["moved"])
        view.seq, view.protocol = int(words["seq"]), int(words["protocol"])
        return view


class Reader:
    """A log as far as it was read; begins with the summary beside it, if that is of this log."""

    def __init__(self, log: Path) -> None:
        self.log, self.size = log, 0  # bytes, as far as they are known of
        self._restart()

    def _restart(self) -> None:
        self.view, self.cursor, self._kept, self._begun = RunView(), 0, 0, False
        self._digest = hashlib.sha256()

    def look(self) -> bool:
        """Returns whether the log has changed in size; a shorter one is another log and read from its beginning.

        Raises:
            NotOurs: It is no plain file.
            FileTooLarge: It is larger than any run's.
        """
        check(self.log)
        try:
            size = self.log.stat().st_size
        except FileNotFoundError:
            size = 0
        if size > LOG_BYTES:
            raise FileTooLarge(path=self.log, seen=spoken(size), most=spoken(LOG_BYTES))
        if size < self.cursor:
            self._restart()
        changed, self.size = size != self.size or not self._begun, size
        return changed

    def begin(self) -> None:
        """Take what the summary says, if it is of this log."""
        if self._begun:
            return
        self._begun = True
        found = summary.kept(self.log) if self.size >= SUMMARIZED else None
        if found is not None:
            words, figures, size, digest = found
            with suppress(ValueError, KeyError, TypeError, OverflowError):
                self.view, self.cursor, self._kept, self._digest = RunView.of_words(words, figures), size, size, digest

    def piece(self) -> bool:
        """Read on, at most 1 MiB; returns whether there was anything.

        Raises:
            NotOurs: The log is no plain file.
            FileTooLarge: It is larger than any run's.
        """
        self.begin()
        lines = whole_lines(self.log, self.cursor)
        self.view.fold(parsed(lines)[0])
        self._digest.update(lines)
        self.cursor += len(lines)
        return bool(lines)

    def catch_up(self) -> Self:
        """Read to the end; raises what `piece` raises."""
        self.look()
        while self.piece():
            pass
        return self

    def keep_if_due(self, last: bool = False) -> None:
        """Write the summary if the log has grown by a sixteenth since, or at all if this is the `last` time."""
        grown = self.size - self._kept
        if self.size < SUMMARIZED or grown < (1 if last else max(SUMMARIZED, self._kept // 16)):
            return
        with suppress(OSError):  # a full disk: it is read from the log then
            self.catch_up()
            summary.keep(self.log, self.view.words(), self.view.steps.figures, self.cursor, self._digest.hexdigest())
        self._kept = self.cursor
