"""What strategies are worth on real recordings, beside what people would use.

python -m benchmarks.pretrained --out=runs/pretrained --stages=data
python -m benchmarks.real_music --data=runs/pretrained/folds --out=runs/real \
  --kept=docs/real_music/minutes
python -m benchmarks.real_music --kept=docs/real_music/minutes --stages=tables \
  --write=docs/real_music.md

Stages, each of which goes on where it was interrupted:
  train     trains each recipe with each seed on each fold: all recipes with the
            first seed, then with the second, and so on; refuses results in
            --out that are of other data or settings
  baselines computes vectors that need no training here, of the recordings of
            --data: mean and deviation of mel, MFCC and chroma, bliss-audio and
            musicnn (their folders: --bliss, --musicnn)
  read_outs looks up by other vectors of the same trainings: their projection,
            a window of each song, the deviation over its patches
  keep      looks the test recordings up by all that is there, and adds the
            values of each query to the files in --kept
  tables    prints the tables of what is kept; needs neither --data nor --out

Each song is a query of one fold, whose training has seen none of its artist and
album. Intervals cover queries and trainings: each seed has trainings of its own
on all folds.
"""

import argparse
from collections.abc import Sequence
import time

from benchmarks.real_music import kept_results
from benchmarks.real_music import read_outs
from benchmarks.real_music import real_runs
from benchmarks.real_music import real_table
from benchmarks.real_music import row_values
from benchmarks.strategies import strategy_runs
from benchmarks.strategies import strategy_table
from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.data import dataset
from pcl_jax.evaluation import folds

STAGES = ("train", "baselines", "read_outs", "keep", "tables")
# Flag -> stages that cannot do without it.
_NEEDED = {
  "data": STAGES[:-1],
  "out": STAGES[:-1],
  "kept": STAGES[-2:],
}
RECIPES = (
  real_runs.UNTRAINED,
  "ss+augmented",
  "album+augmented+all",
  "artist+augmented+all",
  "ss",
  "album",
  "artist",
  "album+augmented",
  "artist+augmented",
  "hybrid+augmented",
  "playlist+augmented+all",
  "hybrid",
  "playlist",
  "album+augmented+all+unmixed",
  "ss+augmented+unmixed",
)


def planned(flags: argparse.Namespace) -> list[tuple]:
  """Returns name, config and folder of each run, in their order.

  A recipe's first run comes early, so that its program is compiled once.
  """
  sizes, jobs = real_runs.sizes_of(flags), []
  first, *others = folds.find(flags.data)
  for seed in flags.seeds:
    pairs = [(recipe, first) for recipe in flags.only]
    pairs += [(recipe, fold) for recipe in flags.only for fold in others]
    for recipe, fold in pairs:
      folder = flags.out / f"{recipe}-{seed}" / fold.name
      config = real_runs.config_of(recipe, seed, fold, sizes, flags.out)
      jobs.append((recipe, config, folder))
  return jobs


def _check(flags: argparse.Namespace) -> None:
  """Refuses what the last stages would refuse, before hours of training."""
  if "baselines" in flags.stages:
    # Needs packages that training does not.
    from benchmarks.real_music import real_baselines

    real_baselines.check(flags.bliss, flags.musicnn)
  if "tables" in flags.stages:
    for one in (*flags.beside, *([flags.box] if flags.box else [])):
      kept_results.read(one)
    if flags.write:
      strategy_table.check_place(flags.write)


def _train(flags: argparse.Namespace) -> None:
  jobs = strategy_runs.unfinished(planned(flags))
  until = time.monotonic() + 60 * flags.minutes
  left = strategy_runs.run_all(jobs, flags.workers, real_runs.run_one, until)
  print(f"{len(jobs) - left} runs done, {left} left")


def _baselines(flags: argparse.Namespace) -> None:
  # Needs packages that training does not.
  from benchmarks.real_music import real_baselines

  real_baselines.make(
    flags.data.with_name("data"),
    flags.out,
    bliss=flags.bliss,
    wheel=flags.musicnn,
  )


def _read_outs(flags: argparse.Namespace) -> None:
  jax_setup.start()  # Not before runs in processes of their own.
  read_outs.make(planned(flags))


def _keep(flags: argparse.Namespace) -> None:
  data = [dataset.DataSet(one) for one in folds.find(flags.data)]
  runs = kept_results.finished(flags.out, len(data))
  others = kept_results.of_statistics(data, flags.out)
  lines = kept_results.keep(flags.kept, data, runs + others)
  for line in lines + read_outs.keep(flags.kept, flags.out, data, runs):
    print(line)


def _tables(flags: argparse.Namespace) -> None:
  text = real_table.of_folders(flags.kept, flags.beside, flags.box, flags.draw)
  print(f"\n{text}")
  if flags.write:
    strategy_table.write_between_markers(flags.write, text)
    print(f"written to {flags.write}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.real_music",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add, path = parser.add_argument, {"type": command_line.path}
  add("--data", **path, help="the folds")
  add("--out", **path, help="runs, vectors")
  add("--kept", **path, help="results, query by query")
  text = f"of {', '.join(STAGES)} (train,keep,tables)"
  add(
    "--stages",
    type=real_runs.stages_of(STAGES),
    default=["train", "keep", "tables"],
    help=text,
  )
  text = "recipes, with commas between"
  add("--only", type=_recipes, default=list(RECIPES), help=text)
  text = "no run begins after so many (no limit)"
  add("--minutes", type=float, default=float("inf"), help=text)
  add("--bliss", **path, help="folder that bliss-audio was installed in")
  add("--musicnn", **path, help="musicnn's wheel")
  text = "results like --kept, of other sizes, for a table"
  add("--beside", **path, nargs="*", default=[], help=text)
  text = "results like --kept, of the recipe of the encoder in the box"
  add("--box", **path, help=text)
  drawn = row_values.DRAWN
  text = "what the intervals' resamples draw, for the tables (%(default)s)"
  add("--draw", choices=drawn, default=drawn[0], help=text)
  add("--write", **path, help="file whose tables are to be replaced")
  real_runs.add_flags(parser)
  flags = parser.parse_args(argv)
  for name, stages in _NEEDED.items():
    if getattr(flags, name) is None and set(flags.stages) & set(stages):
      parser.error(f"--{name} is needed for {', '.join(stages)}")
  return flags


def _recipes(text: str) -> list[str]:
  return list(dict.fromkeys(map(real_runs.recipe, text.split(","))))


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and goes through the stages."""
  flags = _parse(argv)
  steps = (_train, _baselines, _read_outs, _keep, _tables)
  does = dict(zip(STAGES, steps, strict=True))
  _check(flags)
  for stage in flags.stages:
    print(f"{stage}:", flush=True)
    does[stage](flags)


if __name__ == "__main__":
  errors.run_command(main)
