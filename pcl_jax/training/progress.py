"""How far a run is."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass
class Progress:
  """How far a run is; saved with every checkpoint.

  Attributes:
    step: steps taken.
    epoch: the one under way, from 0.
    step_in_epoch: steps taken of it.
    best_loss: lowest total validation loss so far.
    epochs_without_better: since then.
    skipped_steps: steps that learnt nothing, being not finite.
    skipped_in_a_row: of them those since the last good one.
  """

  step: int = 0
  epoch: int = 0
  step_in_epoch: int = 0
  best_loss: float = math.inf
  epochs_without_better: int = 0
  skipped_steps: int = 0
  skipped_in_a_row: int = 0

  def note_validation(self, loss: float) -> None:
    """Ends an epoch with its total validation loss."""
    self.epoch += 1
    self.step_in_epoch = 0
    self.epochs_without_better += 1
    if loss < self.best_loss:
      self.best_loss, self.epochs_without_better = loss, 0

  def as_dict(self) -> dict[str, Any]:
    """Returns plain values; json knows no infinity."""
    values = dataclasses.asdict(self)
    if math.isinf(self.best_loss):
      values["best_loss"] = None
    return values

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> "Progress":
    """Reads what `as_dict` gave."""
    if values["best_loss"] is None:
      values = values | {"best_loss": math.inf}
    return cls(**values)
