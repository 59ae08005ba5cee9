"""Memory savings of a run: chosen before it starts, and one more whenever memory still runs out."""

import gc

import torch

from trainer.contract.errors import OutOfMemory
from trainer.contract.events import EventLog, Warned
from trainer.contract.settings.config import TrainConfig
from trainer.engine.frozen.malloc import keep_little
from trainer.models.identify import BaseModel, unet_numbers
from trainer.planning import memory


class Ladder:
    """A run's memory savings so far, equal in all its processes; each rung of the ladder saves more than the last."""

    def __init__(self, config: TrainConfig, processes: int = 1) -> None:
        self.config, self.processes = config, processes
        self.savings: memory.Savings | None = None  # not chosen yet
        self.device = "cpu"
        self.tiled = False  # whether previews are decoded in tiles
        self._known: tuple[str, int, str, bool] | None = None  # what the plan was made for

    def fit(self, model: BaseModel, device: torch.device, dtype: torch.dtype, room: int, log: EventLog) -> TrainConfig:
        """Returns the settings with the memory savings that the run needs, and logs these once.

        To be called before anything is loaded: some savings decide how that is done.

        Args:
            model: The base model's files.
            device: Where it is to be.
            dtype: Of its weights.
            room: Bytes that are free there.
            log: Gets the warnings.
        """
        if self.savings is None:
            self.device = device.type
            self.savings = next(memory.ladder(self.config, self.device))
            if memory.knows(model.family, unet_numbers(model)):
                self.savings = self._chosen(model.family, device, dtype, room, log)
        if self.device == "cpu" and self.savings != next(memory.ladder(self.config, self.device)):
            keep_little()
        return self._applied(self.savings)

    def _chosen(
        self, family: str, device: torch.device, dtype: torch.dtype, room: int, log: EventLog
    ) -> memory.Savings:
        budget = memory.budget(self.config, room)
        half = dtype != torch.float32
        plan = memory.choose(family, self.config, budget, device.type, half=half, processes=self.processes)
        self.tiled, self._known = plan.tiled, (family, budget, device.type, half)
        if plan.savings != next(memory.ladder(self.config, self.device)):
            log.write(Warned(code="saves_memory", message=f"{memory.sentence(plan)}.", hint=memory.price(plan.savings)))
        if not plan.fits:
            log.write(
                Warned(
                    code="may_not_fit",
                    message=f"The training takes about {plan.peak / memory.GIB:.1f} GiB, "
                    f"and there are {budget / memory.GIB:.1f}.",
                    hint=memory.remedy(plan.smaller),
                )
            )
        return plan.savings

    def step_down(self, detail: str, log: EventLog) -> None:
        """One saving more, after memory ran out; call it when nothing holds the failed attempt any more.

        Raises:
            OutOfMemory: There is none left.
        """
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        first = next(memory.ladder(self.config, self.device))
        failed, self.tiled = self.savings, True
        self.savings = memory.next_below(self.config, self.device, failed) if failed else first
        if self.savings is None:
            raise OutOfMemory(detail=detail, hint=memory.remedy(self._smaller(failed)))
        log.write(
            Warned(
                code="out_of_memory",
                message=f"Out of memory: {detail}. Resuming from the last checkpoint: {memory.words(self.savings)}.",
                hint=memory.price(self.savings),
            )
        )

    def _smaller(self, failed: memory.Savings | None) -> int | None:
        """A resolution that fits, and takes less than what was tried last; None if nobody knows what that takes."""
        if failed is None or self._known is None:
            return None
        family, budget, device, half = self._known
        took = sum(memory.predict(family, self.config, failed, device, half=half, tiled=True).values())
        return memory.smaller(family, self.config, min(budget, took), device, half=half)

    def _applied(self, savings: memory.Savings) -> TrainConfig:
        streamed = "on" if savings.stream else "off"
        model = {"gradient_checkpointing": savings.level, "quantize": savings.quantize, "offload": streamed}
        parts = {"batch_size": savings.batch_size, "accumulation": savings.accumulation}
        return self.config.model_copy(
            update={
                "model": self.config.model.model_copy(update=model),
                "dataset": self.config.dataset.model_copy(update=parts),
            }
        )
