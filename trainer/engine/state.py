"""What a run holds while it trains."""

from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

from trainer.contract.events import EventLog
from trainer.contract.settings.config import TrainConfig
from trainer.dataset.views import Plan
from trainer.engine.adapters.lora import Adapter
from trainer.engine.data.batches import EncodedDataset, Sample, TextStates
from trainer.engine.families.base import Conditioning, Family
from trainer.engine.fingerprint import Inputs
from trainer.engine.objectives import NoiseSchedule
from trainer.engine.previews import PreviewBoard
from trainer.engine.watch.anomalies import Band, Clock, Pace, Standstill, Yardstick
from trainer.engine.watch.nonfinite import Recovery
from trainer.engine.watch.power import PowerWatch
from trainer.runs.folder import RunFolder


@dataclass
class Training:
    """Everything a run holds while it trains."""

    run: RunFolder
    log: EventLog
    config: TrainConfig
    accelerator: Accelerator
    precision: str
    family: Family
    data: EncodedDataset
    inputs: Inputs
    text: TextStates
    board: PreviewBoard
    plan: Plan
    schedule: NoiseSchedule
    adapter: Adapter
    optimizer: torch.optim.Optimizer
    started: float
    step: int = 0  # updates done
    coming: dict[int, list[Sample]] = field(default_factory=dict)  # what the next step shows
    saved: int = -1  # the step of the newest checkpoint
    recovery: Recovery = field(default_factory=Recovery)
    pace: Pace = field(default_factory=Pace)
    band: Band = field(default_factory=Band)
    yardstick: Yardstick = field(default_factory=Yardstick)
    standstill: Standstill = field(default_factory=Standstill)
    clock: Clock = field(default_factory=Clock)
    power: PowerWatch = field(default_factory=PowerWatch)

    def base_prediction(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """What the base model would answer without the adapter."""
        with self.adapter.switched_off():
            return self.family.predict(noisy, t, conditioning)
