"""Looks into a step that was skipped: its loss or gradient was not finite.

The run is restored from the newest checkpoint before the step and trained up to
it, as it was. Then that one batch is taken apart: what enters, what each module
gives, the terms of the loss and the gradients, and at last which line computed
the first value that is not a number, by the NaN checker of jax.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
import contextlib
import functools
import itertools
import math
import os
import pathlib
import traceback
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import restore
from pcl_jax.checkpoint import run_progress
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.data import plans
from pcl_jax.training import initial_weights
from pcl_jax.training import resuming
from pcl_jax.training import setup
from pcl_jax.training import train_step

_PACKAGE = os.fspath(pathlib.Path(__file__).parents[1])


def replay(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  file: str | os.PathLike[str],
  allow_change: Collection[str] = (),
) -> list[str]:
  """Prints what of a batch on file is not finite first; changes nothing.

  `allow_change` has the keys that the run was allowed to go on with.

  Returns:
    What was found, line by line, as it was printed.

  Raises:
    InputError: the file cannot be read, or is not of this run.
  """
  if jax.process_count() > 1:
    raise errors.InputError(
      "--replay looks into a batch in one process: start it once, with "
      "--nodistributed."
    )
  asked = _read(file_names.path(file))
  run = setup.build(config, jax.devices()[: asked["devices"]])
  _check_seed(asked, run.config.seed, file)
  state, progress = _restore_before(run, workdir, asked["step"], allow_change)
  other = errors.InputError(
    f"--replay={file} has other songs than step {asked['step']} of this config "
    "and data set. Give the command line of the run that wrote it."
  )
  if not _is_planned(run, asked):  # Before the steps up to it are trained.
    raise other
  state, batch, plan = _train_up_to(run, state, progress, asked["step"])
  place = progress.step_in_epoch
  songs = run.batches.data.store.song_ids[plan.songs[place]].tolist()
  if [songs, plan.starts[place].tolist()] != [asked["songs"], asked["starts"]]:
    raise other
  lines = [
    f"step {asked['step']}, epoch {progress.epoch}: {len(asked['songs'])} "
    "patches, with the weights that the run had"
  ]
  lines += _findings(run, state, batch, asked["songs"])
  for line in lines:
    console.say(line)
  return lines


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    asked = storage.read_json(path)
    _ = [asked[key] + 0 for key in ("step", "devices")]
    _ = [len(asked[key]) for key in ("songs", "starts")]
    return asked
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.InputError(
      f"--replay={path} cannot be read as a batch that a run has written down "
      f"({error!r}). Give a file of WORKDIR/nonfinite."
    ) from error


def _check_seed(
  asked: dict[str, Any], seed: int, file: str | os.PathLike[str]
) -> None:
  """Raises InputError where a batch on file is of a run with another seed."""
  then = asked.get("seed", seed)
  if then != seed:
    raise errors.InputError(
      f"--replay={file} is of a run with seed {then}, and config.seed is "
      f"{seed}: give --config.seed={then}, and all else as that run had it."
    )


def _is_planned(run: setup.Setup, asked: dict[str, Any]) -> bool:
  """Returns whether the epoch of a batch on file has such a batch."""
  if asked.get("epoch") is None:
    return True
  plan = run.batches.plan_epoch(asked["epoch"])
  songs = run.batches.data.store.song_ids[plan.songs]
  ours = np.stack([songs, plan.starts], axis=1).reshape(len(plan), -1)
  theirs = np.ravel([asked["songs"], asked["starts"]])
  same_length = ours.shape[1] == theirs.size
  return same_length and bool((ours == theirs).all(axis=1).any())


def _restore_before(
  run: setup.Setup,
  workdir: str | os.PathLike[str],
  step: int,
  allow_change: Collection[str],
) -> tuple[train_step.State, run_progress.Progress]:
  """Returns the newest state on file from before a step."""
  checkpoint_files.refuse_bundle(workdir)
  files = checkpoint_files.CheckpointFiles(workdir)
  before = [one for one in files.steps() if one < step]
  if not before:
    console.say("no checkpoint before the step is kept: training from step 0")
    return _beginning(run, files), run_progress.Progress()
  meta = restore.read_meta(files, max(before))
  progress = resuming.progress_of(meta, run.meta, allow_change)
  state = restore.read_state(files, max(before), run.state)
  console.say(f"training from step {max(before)} up to step {step - 1}")
  return state, progress


def _beginning(
  run: setup.Setup, files: checkpoint_files.CheckpointFiles
) -> train_step.State:
  """Returns the state before the first step."""
  if not run.config.init_from:
    return run.state
  run, _ = initial_weights.with_weights(run)
  latest = files.latest()
  meta = run.meta if latest is None else restore.read_meta(files, latest)
  initial_weights.check_same(meta, run.meta)
  return run.state


def _train_up_to(
  run: setup.Setup,
  state: train_step.State,
  progress: run_progress.Progress,
  step: int,
) -> tuple[train_step.State, dict[str, jax.Array], plans.Plan]:
  """Trains until a step is due; returns the state, its batch and the plan."""
  while True:
    plan = run.batches.plan_epoch(progress.epoch)
    batches = run.batches.load(plan, progress.step_in_epoch)
    with contextlib.closing(batches):
      for batch in batches:
        if progress.step == step - 1:
          return state, batch, plan
        state, _ = run.train_step(state, batch, run.key)
        progress.step += 1
        progress.step_in_epoch += 1
    progress.epoch += 1
    progress.step_in_epoch = 0


def _findings(
  run: setup.Setup,
  state: train_step.State,
  batch: dict[str, jax.Array],
  songs: Sequence[int],
) -> list[str]:
  """Returns, line by line, why a step is skipped, in the order of computing."""
  key = jax.random.fold_in(run.key, state["step"])
  others = {name: x for name, x in batch.items() if name != "audio"}
  lines = _named("the batch's", others)
  lines += _named_features(batch["audio"], songs)
  lines += _named("before the step the", state)
  with _watching_modules() as seen:

    def loss(params):
      return run.compute_loss(params, state["batch_stats"], batch, key)

    # A function of its own, so that modules are called again and watched.
    (_, (terms, stats)), gradients = jax.jit(
      jax.value_and_grad(loss, has_aux=True)
    )(state["params"])
    jax.block_until_ready(gradients)
    jax.effects_barrier()
  if seen:
    lines.append(
      f"first output of a module that is not finite: {seen[min(seen)]}"
    )
  bound = train_step.HIGHEST_NUMBER
  lines += _named("the term", terms, bound)
  lines += _named("the new statistics", stats, bound)
  lines += _named("the gradient of", gradients, bound)
  if not lines:
    return [
      "all is finite, and nothing is too large: what was wrong does not come "
      "again"
    ]
  return lines + _first_line(
    lambda: jax.grad(loss, has_aux=True)(state["params"])
  )


def _named(what: str, tree: Any, bound: float = math.inf) -> list[str]:
  """Returns a line for each array with a number that is not below a bound."""
  lines = []
  for path, x in jax.tree.leaves_with_path(tree):
    if jnp.issubdtype(x.dtype, jnp.floating):
      bad = np.count_nonzero(~jax.device_get(train_step.is_below(x, bound)))
      if bad:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        beyond = f" or beyond {bound:g}" if math.isfinite(bound) else ""
        lines.append(f"{what} {name}: {bad} of {x.size} are not finite{beyond}")
  return lines


def _named_features(patches: jax.Array, songs: Sequence[int]) -> list[str]:
  """Returns a line on features that cannot be any, with the ids of songs."""
  bound = train_step.HIGHEST_FEATURE
  lines = _named("the batch's", {"audio": patches}, bound)
  if lines:
    bad = ~jax.device_get(train_step.is_below(patches, bound)).all(axis=(1, 2))
    found = sorted(
      {song for song, is_bad in zip(songs, bad, strict=True) if is_bad}
    )
    lines[0] += f", in song(s) {', '.join(map(str, found))}"
  return lines


@contextlib.contextmanager
def _watching_modules() -> Iterator[dict[int, str]]:
  """Records modules whose output is not finite, by the order of their calls."""
  seen: dict[int, str] = {}
  names: dict[nnx.Module, str] = {}
  calls = itertools.count()

  def watch(call: Callable) -> Callable:
    @functools.wraps(call)
    def watched(self, *arguments, **keywords):
      if self not in names:  # The outermost, of which the others are parts.
        parts = nnx.iter_modules(self)
        names.update((part, "/".join(map(str, path))) for path, part in parts)
      output = call(self, *arguments, **keywords)
      number, name = next(calls), names[self] or type(self).__name__

      def record(is_finite):
        if not is_finite:
          seen[number] = name

      jax.debug.callback(record, train_step.all_finite(output))
      return output

    return watched

  with contextlib.ExitStack() as stack:
    for kind in _module_kinds(nnx.Module):
      if call := vars(kind).get("__call__"):
        kind.__call__ = watch(call)
        stack.callback(setattr, kind, "__call__", call)
    yield seen


def _module_kinds(kind: type) -> Iterator[type]:
  for one in kind.__subclasses__():
    yield one
    yield from _module_kinds(one)


def _first_line(compute: Callable[[], Any]) -> list[str]:
  """Returns where the NaN checker of jax finds the first NaN."""
  try:
    with jax.debug_nans(True):
      jax.block_until_ready(compute())
  except FloatingPointError as error:
    own = [
      frame
      for frame in traceback.extract_tb(error.__traceback__)
      if frame.filename.startswith(_PACKAGE) and frame.filename != __file__
    ]
    where = ""
    if own:
      name = pathlib.Path(own[-1].filename).relative_to(_PACKAGE)
      where = f" at pcl_jax/{name}:{own[-1].lineno} ({own[-1].line})"
    return [f"the NaN checker: {str(error).splitlines()[0]}{where}"]
  return ["the NaN checker: no NaN; what is named is infinite or too large"]
