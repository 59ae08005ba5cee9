"""Learning strength: how strongly a step changes the weights, and what is far from usual for a base model."""

from dataclasses import dataclass

from trainer.contract.home import POCKET
from trainer.contract.settings.config import TrainConfig
from trainer.contract.wording import setting
from trainer.dataset.problems import Problem
from trainer.models.errors import ModelError
from trainer.models.identify import NAMES, identify
from trainer.models.lookup import located

# Lowest and highest usual learning strength; between them lie all presets
USUAL = {"sd15": (2e-5, 5e-4), "sd2": (2e-5, 5e-4), "sdxl": (2e-5, 5e-4), "pocket": (5e-4, 1e-2)}
SHOWN: dict[str, str] = {"pocket": "pocket", **{str(family): name for family, name in NAMES.items()}}
FAR = 10.0  # times below or above the usual
HIGHEST_RATE = 0.1  # that the settings allow


@dataclass(frozen=True)
class Far:
    """A learning strength far from the usual, and the settings that bring it back, by place."""

    what: str  # UNet or text encoder
    strength: float
    usual: tuple[float, float]
    model: str
    remedy: dict[str, float]

    def problem(self) -> Problem:
        """The warning."""
        low, high = self.usual
        then = "hardly anything is learned" if self.strength < low else "training diverges"
        return Problem(
            "strength_unusual",
            f"The learning strength of the {self.what} (learning rate × alpha / rank) is {self.strength:.2g}; usual "
            f"for {self.model} is {low:g} to {high:g}. So far from it {then}.",
            f"Set {' and '.join(setting(place, f'{value:g}') for place, value in self.remedy.items())}.",
        )


def learning_strength(learning_rate: float, alpha: float, rank: float) -> float:
    """Returns how strongly an update changes the weights whatever the rank: learning rate x alpha / rank."""
    return learning_rate * alpha / rank


def far_strengths(config: TrainConfig) -> list[Far]:
    """Returns the learning strengths of what is trained that are beyond ten times either end of the usual."""
    model, adapter, optimizer = _model(config), config.adapter, config.optimizer
    trained = [("UNet", "learning_rate", optimizer.learning_rate)]
    if adapter.text_encoder or adapter.text_encoder_2:
        trained.append(("text encoder", "text_learning_rate", optimizer.text_learning_rate))
    (low, high), found = USUAL[model], []
    for what, name, rate in trained:
        strength = learning_strength(rate, adapter.alpha, adapter.rank)
        if not low / FAR * (1 - 1e-9) <= strength <= high * FAR * (1 + 1e-9):
            wanted = low if strength < low else high
            remedy = _remedy(f"optimizer.{name}", wanted, adapter.alpha, adapter.rank)
            found.append(Far(what, strength, (low, high), SHOWN[model], remedy))
    return found


def strength_problems(config: TrainConfig) -> list[Problem]:
    """Returns a warning for each of them."""
    return [far.problem() for far in far_strengths(config)]


def _remedy(place: str, wanted: float, alpha: float, rank: int) -> dict[str, float]:
    """The learning rate that makes the wanted strength; where none is allowed that does, alpha as large as the rank."""
    rate = float(f"{wanted * rank / alpha:.2g}")
    return {place: rate} if rate <= HIGHEST_RATE else {"adapter.alpha": float(rank), place: wanted}


def _model(config: TrainConfig) -> str:
    """Which of `USUAL` the base model is."""
    path = located(config.model.base_model)
    if path is not None and path.resolve() == POCKET.resolve():
        return "pocket"
    try:
        return identify(path).family if path else _declared(config)
    except ModelError:
        return _declared(config)


def _declared(config: TrainConfig) -> str:
    return "sd15" if config.model.family == "auto" else config.model.family
