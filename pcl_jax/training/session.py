"""One start of a run: what goes on with it, and how a state is saved."""

import dataclasses
from typing import Any

import jax
import ml_collections

from pcl_jax.checkpoint import manager
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.data import plans
from pcl_jax.training import metric_writers
from pcl_jax.training import nonfinite
from pcl_jax.training import preemption
from pcl_jax.training import profiling
from pcl_jax.training import setup
from pcl_jax.training import train_log
from pcl_jax.training import train_step
from pcl_jax.training.progress import Progress

# On the device; fetching a whole state would hold training up.
_all_finite = jax.jit(train_step.all_finite)


@dataclasses.dataclass
class Session:
  """What a start of a run goes on with, beside the run itself.

  Attributes:
    run: what stays the same.
    config: of the run.
    progress: how far it is.
    checkpoints: of the run.
    writer: of its numbers.
    trace: of some steps.
    watch: for what is not finite.
    stop: for signals.
  """

  run: setup.Run
  config: ml_collections.ConfigDict
  progress: Progress
  checkpoints: manager.Checkpoints
  writer: metric_writers.Writer
  trace: profiling.Trace
  watch: nonfinite.Watch
  stop: preemption.Interruption

  def note(
    self,
    plan: plans.Plan,
    terms: dict[str, jax.Array],
    flags: dict[str, jax.Array],
  ) -> None:
    """Takes in what the last step that is counted returned; waits for it."""
    losses, told = train_log.fetch(terms), train_log.fetch(flags)
    self.stop.hear(told)
    self.watch.note(plan, losses, told)

  def failures(self) -> dict[str, int]:
    """Returns what rows of the log say where saves of this start failed."""
    failures = self.checkpoints.failures
    return {"checkpoint_failures": failures} if failures else {}

  def save(
    self, state: dict[str, Any], losses: dict[str, float] | None = None
  ) -> None:
    """Saves a state, with its validation losses if there are any.

    Raises:
      RunError: its weights are not finite.
    """
    if not _all_finite((state["params"], state["batch_stats"])):
      raise errors.RunError(
        f"after step {self.progress.step} the weights are not finite. The "
        "checkpoints before it are kept: lower --config.opt_params.lr (with "
        "--allow_change), and the same --workdir goes on from them."
      )
    meta = self.run.meta | {"progress": self.progress.as_dict()}
    self.checkpoints.save(state, meta, losses)

  def save_within_epoch(self, state: dict[str, Any]) -> None:
    """Saves a state, unless it may be why steps are being skipped."""
    if not self.progress.skipped_in_a_row:
      self.save(state)
      return
    console.say(
      f"step {self.progress.step} is not saved, since it was skipped; the "
      "checkpoint before it is what is gone on from"
    )
