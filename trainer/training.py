"""What a run holds while it trains."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

from trainer.adapters import Adapter
from trainer.contract.buckets import Plan
from trainer.contract.events import EventLog
from trainer.contract.runs import RunFolder
from trainer.contract.settings import TrainConfig
from trainer.data.batches import EncodedDataset, TextStates
from trainer.families.base import Conditioning, Family
from trainer.guardian import Guardian
from trainer.identity import Inputs
from trainer.objectives import NoiseSchedule
from trainer.pace import Band, Clock, Pace
from trainer.previews import PreviewBoard
from trainer.strain import Strain


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
    saved: int = -1  # the step of the newest checkpoint
    guardian: Guardian = field(default_factory=Guardian)
    pace: Pace = field(default_factory=Pace)
    band: Band = field(default_factory=Band)
    clock: Clock = field(default_factory=Clock)
    strain: Strain = field(default_factory=Strain)

    def base_prediction(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """What the base model would answer without the adapter."""
        with self.adapter.switched_off():
            return self.family.predict(noisy, t, conditioning)
