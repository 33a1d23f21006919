"""Trains the encoder in the box from nothing, and says what it is worth.

python -m benchmarks.pretrained --out=runs/pretrained
python -m benchmarks.pretrained --out=runs/pretrained --stages=train,export

Stages, each of which goes on where it was interrupted:
  data      downloads the packages of preprocessing.free_music, renders scores
            as preprocessing.rendered_scores does, and makes one data set of
            both and its folds, in OUT; needs apt-get, fluidsynth, a soundfont
            and music21, or what they made
  train     trains by the recipe that benchmarks.real_music found best, a run
            for each of --seeds; needs OUT/data alone, and no network
  export    writes each as a bundle with its weights in float16
  evaluate  measures the bundles on the test songs, whose artists and albums
            no training has seen
  card      computes the bundles' golden vectors here, and writes their model
            cards, with these results and the licences of the music
"""

import argparse
from collections.abc import Sequence
import os
import pathlib

from benchmarks.real_music import real_runs
from benchmarks.strategies import strategy_runs
from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import half_precision
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import model_card
from pcl_jax.evaluation import evaluator
from pcl_jax.evaluation import report

STAGES = ("data", "train", "export", "evaluate", "card")
RECIPE = "ss"
_TASKS = "artist,artist_other_album,album,sub_genre,hubs,collapse"
SCORES = 300


def _runs(flags: argparse.Namespace) -> dict[int, pathlib.Path]:
  return {seed: flags.out / "runs" / str(seed) for seed in flags.seeds}


def _data_dir(flags: argparse.Namespace) -> pathlib.Path:
  if flags.fold is None:
    return flags.out / "data"
  return flags.out / "folds" / str(flags.fold)


def _make_data(flags: argparse.Namespace) -> None:
  # Needs packages that training does not.
  from benchmarks.real_music import real_data

  real_data.make(flags.out, scores=flags.scores, threads=flags.threads)
  folds = real_data.make_folds(flags.out)
  for share in real_data.SHARES:
    real_data.thin(folds, share)


def _unfinished(flags: argparse.Namespace) -> list[tuple]:
  """Returns the runs that are to be done; refuses those of other settings."""
  sizes, jobs = real_runs.sizes_of(flags), []
  for seed, folder in _runs(flags).items():
    config = real_runs.config_of(
      flags.recipe, seed, _data_dir(flags), sizes, flags.out
    )
    jobs.append((flags.recipe, config, folder))
  return strategy_runs.unfinished(jobs)


def _check_finished(flags: argparse.Namespace) -> None:
  """Refuses runs that have not ended, or are of other data or settings."""
  left = _unfinished(flags)
  if left:
    raise errors.InputError(
      f"{left[0][2]} has no finished run: --stages=train makes it or goes on."
    )


def _train(flags: argparse.Namespace) -> None:
  jobs = _unfinished(flags)
  print(f"{len(flags.seeds) - len(jobs)} runs are there, {len(jobs)} to do")
  strategy_runs.run_all(jobs, flags.workers, real_runs.run_one)


def _export(flags: argparse.Namespace) -> None:
  for seed, folder in _runs(flags).items():
    out = flags.out / "bundles" / str(seed)
    encoder = half_precision.rounded(encoder_loading.load(folder, "latest"))
    encoder.save(out, license=flags.license, force=True)
    size = sum(one.stat().st_size for one in out.iterdir())
    print(f"{out}: {size / 1e6:.1f} MB")


def _evaluate(flags: argparse.Namespace) -> None:
  for seed in flags.seeds:
    bundle = flags.out / "bundles" / str(seed)
    found = evaluator.evaluate(
      bundle, _data_dir(flags), tasks=_TASKS, baselines=True
    )
    report.write(bundle, found)
    print(report.format_evaluation(found))


def _write_cards(flags: argparse.Namespace) -> None:
  # Needs packages that training does not.
  from benchmarks.pretrained import pretrained_card

  hours = real_runs.hours(dataset.DataSet(_data_dir(flags)), catalogues.TRAIN)
  bundles = [flags.out / "bundles" / str(seed) for seed in flags.seeds]
  pairs = [(one, one) for one in bundles]
  if flags.place is not None:
    pairs.append((bundles[0], flags.place))
  for bundle, place in pairs:
    # With results now, and with golden vectors of this machine: those of a GPU
    # have fewer digits.
    encoder = encoder_loading.load(bundle, verify=False)
    encoder.save(place, license=flags.license, force=True)
    pretrained_card.append(place, flags.out, hours)
    print(place / "README.md")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.pretrained",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--out", type=command_line.path, required=True)
  text = f"of {', '.join(STAGES)} (all)"
  add(
    "--stages",
    type=real_runs.stages_of(STAGES),
    default=list(STAGES),
    help=text,
  )
  text = "scores to render (%(default)s); 0 for recordings alone"
  add("--scores", type=_scores, default=SCORES, help=text)
  add("--threads", type=command_line.count, default=os.cpu_count())
  real_runs.add_flags(parser)
  add("--recipe", type=real_runs.recipe, default=RECIPE)
  text = "leave this fold out, a quarter of the songs, and measure on it"
  add("--fold", type=int, choices=range(4), help=text)
  text = "card: a copy of the first seed's bundle, such as pcl_jax/pretrained"
  add("--place", type=command_line.path, help=text)
  add("--license", default=model_card.NO_LICENSE, help="of the weights")
  return parser.parse_args(argv)


def _scores(text: str) -> int:
  if int(text) < 0:
    raise argparse.ArgumentTypeError(f"{text} is less than 0")
  return int(text)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and goes through the stages."""
  flags = _parse(argv)
  steps = dict(
    zip(
      STAGES,
      (_make_data, _train, _export, _evaluate, _write_cards),
      strict=True,
    )
  )
  model_card.check_license(flags.license)
  if flags.place is not None and "card" in flags.stages:
    bundle_files.check_free(flags.place, force=True)
  for stage in flags.stages:
    print(f"{stage}:", flush=True)
    if stage not in ("data", "train"):
      jax_setup.start()  # Not before runs in processes of their own.
      _check_finished(flags)
    steps[stage](flags)


if __name__ == "__main__":
  errors.run_command(main)
