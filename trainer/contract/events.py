"""The event protocol, v1: one JSON object per line in `events.jsonl`, and what a screen shows of it.

The trainer appends; everybody else reads. A line is written at once, and a reader consumes whole lines only.
"""

import errno
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from trainer.contract.files import add_line, open_lines
from trainer.contract.ours import open_plain

HEARTBEAT_SECONDS = 10.0
Count = Annotated[int, Field(ge=-(2**53), le=2**53)]  # what a browser counts exactly
Seconds = Annotated[float, Field(ge=-1e10, le=1e10)]  # some 300 years; neither infinite nor NaN
PROTOCOL = 1


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


Event = RunStarted | Phase | Step | Sample | Checkpoint | Lora | Heartbeat | Warned | RunFailed | RunFinished
_PARSER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def read_events(path: Path, cursor: int = 0) -> tuple[list[Event], int, int]:
    """Events after byte `cursor`, the new cursor, and how many lines could not be read.

    Only whole lines are consumed. A line of an unknown type or phase was written by another version: it is skipped and
    counts as read. A missing file is an empty one.

    Raises:
        NotOurs: It is no plain file.
    """
    try:
        with open_plain(path) as file:
            file.seek(cursor)
            data = file.read()
    except FileNotFoundError:
        return [], cursor, 0
    whole = data[: data.rfind(b"\n") + 1]
    events: list[Event] = []
    damaged = 0
    for line in whole.splitlines():
        if not line.strip():
            continue
        try:
            events.append(_PARSER.validate_json(line))
        except ValidationError as error:
            damaged += not _of_another_version(error)
    return events, cursor + len(whole), damaged


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
        earlier, _, _ = read_events(path) if path else ([], 0, 0)  # after it was opened: a lacking newline is there now
        self._seq = earlier[-1].seq + 1 if earlier else 0
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

    def write(self, event: Event) -> None:
        """Append one event with its number and time, in a single write.

        Raises:
            OSError: The disk takes no more, or the log was moved or deleted: what is written would be lost with it.
        """
        with self._lock:
            self._append(event)

    def _append(self, event: Event) -> None:
        stamped = event.model_copy(update={"seq": self._seq, "t": time.time()})
        add_line(self._file, stamped.model_dump_json(by_alias=True).encode())
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


@dataclass
class RunView:
    """What a screen shows of a run: the events so far, folded. Feed it new events in order with `fold`."""

    started: RunStarted | None = None
    ended: RunFinished | RunFailed | None = None
    phase: Phase | None = None
    steps: list[Step] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    loras: list[Lora] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    heard: float = 0.0  # when the newest event was written, Unix seconds
    moved: float = 0.0  # when the newest was that shows work: all but heartbeats

    def fold(self, events: list[Event]) -> Self:
        """Add new events; a resumed run drops what it showed beyond the step it resumes at."""
        for event in events:
            self.heard = event.t
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
        self.steps = [s for s in self.steps if s.step <= step]
        self.samples = [s for s in self.samples if s.step <= step]
        self.checkpoints = [c for c in self.checkpoints if c.step <= step]
