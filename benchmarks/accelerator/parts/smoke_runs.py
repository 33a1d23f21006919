"""All eight families launched small, at once; one goes on, and is used."""

import json
import shutil

from benchmarks.accelerator import part_context
from benchmarks.accelerator import programs
from pcl_jax.common import errors

_FAMILIES = {
  "ss_resnet": "smoke",
  "ss_sc_cnn": "smoke",
  "cm_resnet": "a_g_p,smoke",
  "cm_sc_cnn": "a_p,smoke",
  "aim_resnet": "genre,smoke",
  "aim_sc_cnn": "artist,smoke",
  "hybrid_resnet": "smoke",
  "hybrid_sc_cnn": "genre+a_g,smoke",
}
_TINY = ("ss_resnet", "hybrid_resnet")
_USED = "hybrid_resnet"


def _launch_all(context: part_context.Context) -> None:
  """Launches every family."""
  data, runs = context.scratch / "smoke", context.scratch / "smoke_runs"
  programs.finish(
    programs.start(
      *programs.make_sample(data, 96, 6), environment=programs.ON_CPU
    ),
    context.seconds_left,
  )
  shutil.rmtree(runs, ignore_errors=True)
  runs.mkdir()
  started = {
    name: programs.start(
      "launch.py",
      f"--config=configs/{name}.py:{argument}",
      f"--workdir={runs / name}",
      f"--config.data.dir={data}",
      log=context.out / f"smoke_{name}.log",
    )
    for name, argument in _FAMILIES.items()
    if not context.tiny or name in _TINY
  }
  for name, process in started.items():
    try:
      programs.finish(process, context.seconds_left)
      last = (runs / name / "metrics.jsonl").read_text().splitlines()[-1]
      context.record(name, step=json.loads(last)["step"])
    except errors.RunError as error:
      context.record(name, error=str(error))


def measure(context: part_context.Context) -> None:
  """Launches the families, then goes on with one, evaluates it and embeds."""
  _launch_all(context)
  workdir = f"--workdir={context.scratch / 'smoke_runs' / _USED}"
  data = context.scratch / "smoke"
  table = context.scratch / "smoke_runs" / "songs.parquet"
  for name, words in {
    "goes on": (
      "launch.py",
      f"--config=configs/{_USED}.py:smoke",
      workdir,
      f"--config.data.dir={data}",
      "--config.epochs=3",
    ),
    "evaluates": ("-m", "pcl_jax.evaluate", workdir),
    "embeds": (
      *("-m", "pcl_jax.embed", workdir, f"--data={data}", f"--out={table}"),
    ),
  }.items():
    try:
      seconds = programs.finish(programs.start(*words), context.seconds_left)
      context.record(name, seconds=seconds)
    except errors.RunError as error:
      context.record(name, error=str(error))
