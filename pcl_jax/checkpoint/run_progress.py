"""How far a run is, as its checkpoints say it."""

import dataclasses


@dataclasses.dataclass
class Progress:
  """How far a run is; saved with every checkpoint."""

  step: int = 0  # Number of steps taken.
  epoch: int = 0  # The one under way.
  step_in_epoch: int = 0
  best_loss: float | None = None  # Lowest total validation loss so far.
  epochs_without_better: int = 0
  skipped_steps: int = 0  # They learned nothing, being not finite.
  skipped_in_a_row: int = 0
  compared_since: int = 0  # Validation losses after this step alone.

  def record_validation(self, loss: float) -> None:
    """Records the total validation loss of an epoch."""
    self.epochs_without_better += 1
    if self.best_loss is None or loss < self.best_loss:
      self.best_loss, self.epochs_without_better = loss, 0

  def end_epoch(self) -> None:
    """Goes on to the next epoch."""
    self.epoch += 1
    self.step_in_epoch = 0

  def forget_validations(self) -> None:
    """Begins to look for the best validation loss anew."""
    self.best_loss, self.epochs_without_better = None, 0
    self.compared_since = self.step
