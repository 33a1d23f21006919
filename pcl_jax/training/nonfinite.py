"""Steps whose loss or gradient is not finite: written down, counted, bounded.

So are those with a feature that cannot be one.

The step itself has kept the state as it was (`train_step.update`). Here its
batch is written down, so that it can be looked into later (`replay`), and a
run in which nothing else comes any more is ended.
"""

import json
import math
import pathlib
from typing import Any

import numpy as np

from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import hosts
from pcl_jax.data import plans
from pcl_jax.training import metric_writers
from pcl_jax.training import setup
from pcl_jax.training import train_log
from pcl_jax.training import train_step
from pcl_jax.training.progress import Progress

FOLDER = "nonfinite"
KIND = "skipped"  # Of rows in metrics.jsonl.
_MOST_DAMAGED = 0.001  # Share of all songs.


class Watch:
  """Looks at the losses of each step as they come in."""

  def __init__(
    self,
    run: setup.Run,
    workdir: pathlib.Path,
    writer: metric_writers.Writer,
    progress: Progress,
    most_in_a_row: int,
  ):
    """Prepares.

    Args:
      run: that is watched.
      workdir: folder of the run; batches are written into its `nonfinite`.
      writer: gets a row for each skipped step.
      progress: counts them.
      most_in_a_row: so many end the run.
    """
    self._run, self._folder = run, workdir / FOLDER
    self._writer, self._progress = writer, progress
    self._most, self._damaged = most_in_a_row, set()

  def note(
    self, plan: plans.Plan, terms: dict[str, float], flags: dict[str, float]
  ) -> None:
    """Takes in a step; it is the last that the progress has counted.

    Args:
      plan: of its epoch.
      terms: of its loss.
      flags: beside them.

    Raises:
      RunError: it is one too many in a row.
    """
    progress = self._progress
    if not flags[train_step.SKIPPED]:
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
    path = self._write(self._described(plan, terms))
    if progress.skipped_in_a_row >= self._most:
      raise errors.RunError(
        f"{said} ({train_log.in_words(terms)}), "
        f"{progress.skipped_in_a_row} in a row "
        "(--config.train.max_nonfinite_steps). The checkpoints before it are "
        "kept: lower --config.opt_params.lr or raise "
        "--config.loss_params.contrastive_temperature (with --allow_change), "
        f"and the same --workdir goes on from them. --replay={path} says what "
        "became infinite or no number first."
      )
    console.warn(
      f"{said}: nothing is learnt of it. Its batch is written into "
      f"{path}; --replay={path} looks into it"
    )

  def _name_damaged(self, songs: np.ndarray) -> None:
    """Compares the records of a batch with their checksums.

    Raises:
      RunError: too many have been found to be damaged.
    """
    store = self._run.data.store
    for song in sorted(set(songs.tolist()) - self._damaged):
      try:
        store.read_song(song)
      except errors.InputError as error:
        self._damaged.add(song)
        console.warn(str(error))
    if len(self._damaged) > _MOST_DAMAGED * len(store):
      ids = ", ".join(str(store.song_ids[song]) for song in self._damaged)
      raise errors.RunError(
        f"{len(self._damaged)} of {len(store)} songs in {store.path} have "
        f"proved to be damaged (ids {ids}), more than {_MOST_DAMAGED:.1%}. The "
        "checkpoints are kept: copy the store again, or make it again; "
        "python -m pcl_jax.data.verify lists all that is damaged."
      )

  def _described(
    self, plan: plans.Plan, terms: dict[str, float]
  ) -> dict[str, Any]:
    run, progress = self._run, self._progress
    place = progress.step_in_epoch - 1
    songs = plan.songs[place]
    return {
      "step": progress.step,
      "epoch": progress.epoch,
      "step_in_epoch": progress.step_in_epoch,
      "seed": run.seed,
      "batch_size": run.batch_size,
      "devices": run.sharding.mesh.size,
      "data": run.meta["data"],
      "terms": {
        name: value if math.isfinite(value) else str(value)
        for name, value in terms.items()
      },
      "songs": run.data.store.song_ids[songs].tolist(),
      "starts": plan.starts[place].tolist(),
    }

  def _write(self, described: dict[str, Any]) -> pathlib.Path:
    path = self._folder / f"{described['step']}.json"
    if not hosts.is_first():
      return path
    try:
      self._folder.mkdir(exist_ok=True)
      partial = path.with_name(path.name + ".partial")
      partial.write_text(json.dumps(described) + "\n")
      partial.replace(path)
    except OSError as error:
      console.warn(f"{path} cannot be written ({error.strerror})")
    return path
