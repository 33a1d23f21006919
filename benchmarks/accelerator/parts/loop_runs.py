"""Training as a user starts it, from the loader, on random features."""

import dataclasses
import shutil

from benchmarks.accelerator import part_context
from benchmarks.accelerator import programs
from benchmarks.accelerator import random_data
from benchmarks.accelerator import run_figures
from benchmarks.accelerator import trace_summary
from pcl_jax.common import errors

_STEPS, _LOGGED = 600, 50
_TINY_STEPS, _TINY_LOGGED = 20, 5
_TO_START_S = 100.0


@dataclasses.dataclass(frozen=True)
class _Run:
  name: str
  encoder: str = "resnet"
  dtype: str = "bfloat16"
  threads: int = 0
  order: str = "shuffled"
  traced: bool = False
  of_tree: bool = False


def _runs(context: part_context.Context) -> list[_Run]:
  """Returns the runs, the most important ones first."""
  first = _Run("resnet bfloat16", traced=True)
  if context.tiny:
    return [first]
  tree = dataclasses.replace(first, name="tree resnet bfloat16", of_tree=True)
  return [
    first,
    *([tree] if context.tree else []),
    _Run("resnet bfloat16, resident", order="resident", traced=True),
    _Run("resnet float32", dtype="float32"),
    _Run("sc_cnn bfloat16", encoder="sc_cnn"),
    _Run("resnet bfloat16, 8 threads", threads=8),
    _Run("resnet bfloat16, 2 threads", threads=2),
  ]


def _train(context: part_context.Context, run: _Run) -> None:
  workdir = context.scratch / "loop" / run.name.replace(" ", "_")
  shutil.rmtree(workdir, ignore_errors=True)
  steps = _TINY_STEPS if context.tiny else _STEPS
  logged = _TINY_LOGGED if context.tiny else _LOGGED
  changes = random_data.changes(context) | {
    "data.threads": run.threads,
    "data.order": run.order,
    "train.compute_dtype": run.dtype,
    "steps": steps,
    "validate_every_steps": steps,
    "log_every_steps": logged,
    "save_every_steps": 10**6,
  }
  process = programs.start(
    "launch.py",
    f"--config=configs/hybrid_{run.encoder}.py",
    f"--workdir={workdir}",
    *(f"--config.{key}={value}" for key, value in changes.items()),
    *(["--profile"] if run.traced else []),
    root=context.tree if run.of_tree else part_context.ROOT,
  )
  seconds = programs.finish(process, context.seconds_left)
  figures = run_figures.speeds(workdir, 2 * logged)
  ms = 2e3 * changes["data.batch_size"] / figures["patches_per_s"]
  context.record(run.name, ms_a_step=ms, **figures, whole_s=seconds)
  if run.traced:
    trace_summary.record(context, workdir / "profile", f"loop {run.name}")


def measure(context: part_context.Context) -> None:
  """Trains some hundred steps of each form."""
  random_data.make(context)
  for run in _runs(context):
    if not context.has(10 if context.tiny else _TO_START_S, run.name):
      continue
    try:
      _train(context, run)
    except errors.RunError as error:
      context.record(run.name, error=str(error))
