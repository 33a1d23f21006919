"""Looks into a step whose loss or gradient was not finite.

The run is taken up from the newest checkpoint before the step and trained up to
it, as it was; then that one batch is taken apart: what enters, what each module
gives, the terms of the loss and the gradients, and at last which line made the
first value that is no number, by the NaN checker of jax.
"""

from collections.abc import Callable, Iterator
import contextlib
import json
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
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.data import plans
from pcl_jax.training import config_changes
from pcl_jax.training import loop
from pcl_jax.training import setup
from pcl_jax.training import train_step
from pcl_jax.training.progress import Progress

_PACKAGE = os.fspath(pathlib.Path(__file__).parents[1])


def replay(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  file: str | os.PathLike[str],
) -> list[str]:
  """Says what of a batch is infinite or no number first; changes nothing.

  Args:
    config: of the run.
    workdir: its folder.
    file: of the batch, as the run has written it.

  Returns:
    What was found, line by line, as it was said.

  Raises:
    InputError: the file cannot be read, or is not of this run.
  """
  if jax.process_count() > 1:
    raise errors.InputError(
      "--replay looks into a batch in one process: start it once, with "
      "--nodistributed."
    )
  asked = _read(pathlib.Path(file))
  run = setup.build(config, jax.devices()[: asked["devices"]])
  state, progress = _restore_before(run, workdir, asked["step"])
  state, batch, plan = _train_up_to(run, state, progress, asked["step"])
  _check_same_batch(run, plan, progress, asked, file)
  lines = [
    f"step {asked['step']}, epoch {progress.epoch}: {len(asked['songs'])} "
    "patches, with the weights that the run had"
  ]
  lines += _findings(run, state, batch)
  for line in lines:
    console.say(line)
  return lines


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    asked = json.loads(path.read_text())
    _ = [asked[key] + 0 for key in ("step", "devices")]
    _ = [len(asked[key]) for key in ("songs", "starts")]
    return asked
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.InputError(
      f"--replay={path} cannot be read as a batch that a run has written down "
      f"({error!r}). Give a file of WORKDIR/nonfinite."
    ) from error


def _restore_before(
  run: setup.Run, workdir: str | os.PathLike[str], step: int
) -> tuple[train_step.State, Progress]:
  """Returns the newest state that is on file of before a step."""
  files = checkpoint_files.CheckpointFiles(workdir)
  before = [one for one in files.steps() if one < step]
  if not before:
    console.say("no checkpoint before the step is kept: training from step 0")
    return run.state, Progress()
  meta = restore.read_meta(files, max(before))
  config_changes.check(meta, run.meta)
  state = restore.read_state(files, max(before), run.state)
  console.say(f"training from step {max(before)} up to step {step - 1}")
  return state, Progress.from_dict(meta["progress"])


def _train_up_to(
  run: setup.Run, state: train_step.State, progress: Progress, step: int
) -> tuple[train_step.State, dict[str, jax.Array], plans.Plan]:
  """Trains until a step is due; returns the state, its batch and the plan."""
  while True:
    plan = loop.plan_epoch(run, progress.epoch)
    batches = loop.load(run, plan, progress.step_in_epoch)
    with contextlib.closing(batches):
      for batch in batches:
        if progress.step == step - 1:
          return state, batch, plan
        state, _ = run.train_step(state, batch, run.key)
        progress.step += 1
        progress.step_in_epoch += 1
    progress.epoch += 1
    progress.step_in_epoch = 0


def _check_same_batch(
  run: setup.Run,
  plan: plans.Plan,
  progress: Progress,
  asked: dict[str, Any],
  file: str | os.PathLike[str],
) -> None:
  place = progress.step_in_epoch
  songs = run.data.store.song_ids[plan.songs[place]].tolist()
  if songs != asked["songs"] or plan.starts[place].tolist() != asked["starts"]:
    raise errors.InputError(
      f"--replay={file} has other songs than step {asked['step']} of this "
      "config and data set. Give the command line of the run that wrote it."
    )


def _findings(
  run: setup.Run, state: train_step.State, batch: dict[str, jax.Array]
) -> list[str]:
  """Returns, line by line, what is not finite, in the order of computing."""
  key = jax.random.fold_in(run.key, state["step"])
  lines = _named("the batch's", batch)
  lines += _named("before the step the", state)
  with _watching_modules() as seen:

    def loss(params):
      return run.compute_loss(params, state["batch_stats"], batch, key)

    # A function of its own, so that modules are called and watched anew.
    (_, (terms, stats)), gradients = jax.jit(
      jax.value_and_grad(loss, has_aux=True)
    )(state["params"])
    jax.block_until_ready(gradients)
    jax.effects_barrier()
  if seen:
    lines.append(
      f"first output of a module that is not finite: {seen[min(seen)]}"
    )
  lines += _named("the term", terms)
  lines += _named("the new statistics", stats)
  lines += _named("the gradient of", gradients)
  if not lines:
    return ["all is finite: what was wrong does not come again"]
  return lines + _first_line(
    lambda: jax.grad(loss, has_aux=True)(state["params"])
  )


def _named(what: str, tree: Any) -> list[str]:
  """Returns a line for each array that is not finite."""
  lines = []
  for path, x in jax.tree.leaves_with_path(tree):
    if jnp.issubdtype(x.dtype, jnp.floating):
      values = np.asarray(jax.device_get(x), np.float32)
      bad = np.count_nonzero(~np.isfinite(values))
      if bad:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        lines.append(f"{what} {name}: {bad} of {values.size} are not finite")
  return lines


@contextlib.contextmanager
def _watching_modules() -> Iterator[dict[int, str]]:
  """Notes modules whose outputs are not finite, by the order of their calls."""
  seen: dict[int, str] = {}
  calls = iter(range(10**9))
  old: dict[type, Callable] = {}
  names: dict[int, str] = {}

  depth = 0

  def wrap(kind: type, call: Callable) -> Callable:
    def watched(self, *arguments, **keywords):
      nonlocal depth
      if not depth:  # The outermost, of which the others are parts.
        parts = nnx.iter_modules(self)
        names.clear()
        names.update({id(x): "/".join(map(str, path)) for path, x in parts})
      depth += 1
      try:
        output = call(self, *arguments, **keywords)
      finally:
        depth -= 1
      number, name = next(calls), names.get(id(self)) or kind.__name__

      def note(is_finite):
        if not is_finite:
          seen[number] = name

      jax.debug.callback(note, train_step.all_finite(output))
      return output

    return watched

  for kind in _module_kinds(nnx.Module):
    if "__call__" in vars(kind):
      old[kind] = kind.__call__
      kind.__call__ = wrap(kind, old[kind])
  try:
    yield seen
  finally:
    for kind, call in old.items():
      kind.__call__ = call


def _module_kinds(kind: type) -> Iterator[type]:
  for one in kind.__subclasses__():
    yield one
    yield from _module_kinds(one)


def _first_line(compute: Callable[[], Any]) -> list[str]:
  """Returns where jax's checker finds the first value that is no number."""
  old = jax.config.jax_debug_nans
  jax.config.update("jax_debug_nans", True)
  try:
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
  finally:
    jax.config.update("jax_debug_nans", old)
  return ["the NaN checker: no value is no number; there are infinite ones"]
