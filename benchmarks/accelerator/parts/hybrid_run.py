"""A Hybrid training of the paper's width on the sample, and its evaluation."""

import shutil
import time

from benchmarks.accelerator import part_context
from benchmarks.accelerator import programs
from benchmarks.accelerator import random_data
from benchmarks.accelerator import run_figures
from benchmarks.accelerator import trace_summary
from benchmarks.accelerator.parts import sample_songs
from pcl_jax.evaluation import report
from pcl_jax.training import metric_writers

_TRAINED_S, _TO_EVALUATE_S = 180.0, 120.0
_TINY_TRAINED_S, _TINY_TO_EVALUATE_S = 240.0, 20.0
_POLL_S = 2.0


def _await_sample(context: part_context.Context, needed_s: float) -> None:
  """Waits for the sample, or makes it where nothing makes it."""
  begin = time.monotonic()
  while sample_songs.is_being_made(context):
    if not context.has(needed_s, "waiting longer for the sample"):
      break
    time.sleep(_POLL_S)
  if not sample_songs.is_made(context):
    making = programs.start(
      *sample_songs.words(context), environment=programs.ON_CPU
    )
    programs.finish(making, context.seconds_left)
  context.record("sample", waited_s=time.monotonic() - begin)


def measure(context: part_context.Context) -> None:
  """Trains for three minutes, stops by SIGTERM, and evaluates."""
  trained_s = _TINY_TRAINED_S if context.tiny else _TRAINED_S
  to_evaluate_s = _TINY_TO_EVALUATE_S if context.tiny else _TO_EVALUATE_S
  _await_sample(context, trained_s + to_evaluate_s)
  workdir = context.scratch / "hybrid"
  shutil.rmtree(workdir, ignore_errors=True)
  changes = {
    "data.dir": sample_songs.folder_of(context),
    "data.sample_songs": 0,
    "data.batch_size": 96,
    "epochs": 1000,
    "early_stop_patience": 1000,
    "opt_params.lr": 5e-4,
    "train.compute_dtype": "bfloat16",
  }
  if context.tiny:
    changes |= {
      "data.batch_size": random_data.TINY_PAIRS,
      "epochs": 8,  # A trace is of steps 10 to 15.
      "log_every_steps": 2,
      "model_params.audio.width": random_data.TINY_WIDTH,
    }
  process = programs.start(
    "launch.py",
    "--config=configs/hybrid_resnet.py",
    f"--workdir={workdir}",
    *(f"--config.{key}={value}" for key, value in changes.items()),
    "--profile",
  )
  left_s = context.seconds_left - to_evaluate_s
  ask_at = max(min(trained_s, left_s), 20.0)
  programs.finish(process, 60.0, ask_at=ask_at)
  shutil.copy(
    workdir / metric_writers.FILE_NAME, context.out / "hybrid.metrics.jsonl"
  )
  context.record("training", **run_figures.speeds(workdir, 50))
  for row in run_figures.rows(workdir, "validation")[-1:]:
    terms = {k: v for k, v in row.items() if isinstance(v, float)}
    context.record("last validation", epoch=row["epoch"], **terms)
  trace_summary.record(context, workdir / "profile", "hybrid")
  seconds = programs.finish(
    programs.start("-m", "pcl_jax.evaluate", f"--workdir={workdir}"),
    context.seconds_left,
  )
  context.record("evaluation", seconds=seconds)
  shutil.copy(
    workdir / report.FILE_NAME, context.out / f"hybrid.{report.FILE_NAME}"
  )
