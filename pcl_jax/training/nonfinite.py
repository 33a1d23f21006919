"""Steps whose loss or gradient is not finite: written down, counted, bounded.

So are steps with a feature that cannot be one. The step itself has kept the
state as it was (`train_step.update`). Here its batch is written down,
so that `replay` can look into it later, and a run is ended when too many steps
in a row are skipped. Validation leaves out batches with such features.
"""

import math
import pathlib

from jaxtyping import Int
import numpy as np

from pcl_jax.checkpoint import run_progress
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import hosts
from pcl_jax.common import storage
from pcl_jax.data import plans
from pcl_jax.training import metric_writers
from pcl_jax.training import setup
from pcl_jax.training import train_step

FOLDER = "nonfinite"
KIND = "skipped"  # Of rows in metrics.jsonl.
_MOST_DAMAGED = 0.001  # Share of all songs.
_REPAIR = (
  "The checkpoints are kept: copy the song store again, or make it again; "
  "python -m pcl_jax.data.verify lists all that is damaged."
)


class Watch:
  """Looks at the losses of each step as they come in."""

  def __init__(
    self,
    run: setup.Setup,
    workdir: pathlib.Path,
    writer: metric_writers.MetricWriter,
    progress: run_progress.Progress,
  ):
    """Prepares to write batches into the workdir and rows by the writer."""
    self._run, self._folder = run, workdir / FOLDER
    self._writer, self._progress = writer, progress
    self._damaged: set[int] = set()

  def record(
    self, plan: plans.Plan, terms: dict[str, float], skipped: bool
  ) -> None:
    """Records the last counted step of a plan, with the terms of its loss.

    Raises:
      RunError: too many steps in a row are skipped, or songs damaged.
    """
    progress = self._progress
    if not skipped:
      progress.skipped_in_a_row = 0
      return
    progress.skipped_steps += 1
    progress.skipped_in_a_row += 1
    row = {
      "epoch": progress.epoch,
      "skipped_steps": progress.skipped_steps,
      "skipped_in_a_row": progress.skipped_in_a_row,
    }
    self._writer.write(KIND, progress.step, row)
    self._name_damaged(plan.songs[progress.step_in_epoch - 1])
    what = "a gradient or a feature"
    if not math.isfinite(terms["total"]):
      what = "the loss"
    said = f"{what} of step {progress.step} is not finite"
    path = self._write(plan)
    if progress.skipped_in_a_row >= self._run.config.train.max_nonfinite_steps:
      raise errors.RunError(
        f"{said} ({metric_writers.format_terms(terms)}), "
        f"{progress.skipped_in_a_row} in a row "
        "(--config.train.max_nonfinite_steps). The checkpoints before it are "
        "kept: lower --config.opt_params.lr or raise "
        "--config.loss_params.contrastive_temperature (with --allow_change), "
        f"and the same --workdir goes on from them. --replay={path} says which "
        "value was infinite or not a number first."
      )
    console.warn(
      f"{said}: nothing is learned from it. Its batch is written into "
      f"{path}; --replay={path} looks into it"
    )

  def record_validation(
    self, plan: plans.Plan, places: Int[np.ndarray, " skipped"]
  ) -> int:
    """Names damaged songs of skipped validation batches; returns their number.

    Raises:
      RunError: no batch is left, or too many songs are damaged.
    """
    if not len(places):
      return 0
    self._name_damaged(plan.songs[places])
    said = (
      f"{len(places)} of {len(plan)} validation batches have features that are "
      f"not finite or beyond {train_step.HIGHEST_FEATURE:g}"
    )
    if len(places) == len(plan):
      raise errors.RunError(f"{said}, and nothing is left. {_REPAIR}")
    console.warn(f"{said}: they are left out of the validation loss")
    return len(places)

  def _name_damaged(self, songs: np.ndarray) -> None:
    """Compares the records of a batch with their checksums."""
    store = self._run.batches.data.store
    for song in sorted(set(songs.ravel().tolist()) - self._damaged):
      try:
        store.read_song(song)
      except errors.InputError as error:
        self._damaged.add(song)
        console.warn(str(error))
    if len(self._damaged) > _MOST_DAMAGED * len(store):
      ids = ", ".join(str(store.song_ids[song]) for song in self._damaged)
      raise errors.RunError(
        f"{len(self._damaged)} of {len(store)} songs in {store.path} have "
        f"proved to be damaged (ids {ids}), more than {_MOST_DAMAGED:.1%}. "
        f"{_REPAIR}"
      )

  def _write(self, plan: plans.Plan) -> pathlib.Path:
    """Writes down what the batch was; returns the file's path."""
    progress, batches = self._progress, self._run.batches
    path = self._folder / f"{progress.step}.json"
    if not hosts.is_first():
      return path
    place = progress.step_in_epoch - 1
    described = {
      "step": progress.step,
      "epoch": progress.epoch,
      "seed": batches.config.seed,
      "devices": batches.sharding.mesh.size,
      "songs": batches.data.store.song_ids[plan.songs[place]].tolist(),
      "starts": plan.starts[place].tolist(),
    }
    try:
      self._folder.mkdir(exist_ok=True)
      storage.write_json(path, described, indent=None)
    except OSError as error:
      console.warn(f"{path} cannot be written ({error.strerror})")
    return path
