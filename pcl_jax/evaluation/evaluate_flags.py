"""The command line of the evaluation."""

import argparse
from collections.abc import Sequence

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.evaluation import context as contexts
from pcl_jax.evaluation import registry


def _add_what(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that say what is evaluated."""
  add = parser.add_argument
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument("--workdir", help="folder of the run")
  what.add_argument(
    "--compare",
    nargs="+",
    metavar="RUN",
    help="folders of evaluated runs, each tested against the first",
  )
  add(
    "--checkpoint",
    choices=("best", "latest"),
    default="best",
    help="by validation loss, or by step (%(default)s)",
  )
  add("--data", help="data set; the one the run trained on where not given")
  add(
    "--tasks",
    default=registry.ALL,
    help=f"{registry.ALL} (default), {registry.NONE}, or any of "
    f"{', '.join(registry.TASKS)}, separated by commas",
  )
  add(
    "--tagging",
    metavar="DIR[,DIR]",
    help="public tagging sets that preprocessing.tagging_sets has prepared",
  )
  add(
    "--baselines",
    action="store_true",
    help="the tasks also on the untrained encoder, on statistics of the mel, "
    "on mode P's vectors where defined; popularity and random for playlists",
  )


def _add_how(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that become `Options`."""
  add = parser.add_argument
  add(
    "--split",
    choices=("test", "validation"),
    default="test",
    help="whose songs retrieval and playlist continuation seek (default "
    "%(default)s)",
  )
  add(
    "--min_playlists",
    type=int,
    default=1,
    help="playlists that two songs share to count as alike (default 1)",
  )
  add(
    "--largest_artist",
    type=int,
    help="artists and albums of more songs are none, as `various artists`",
  )
  add(
    "--neighbours",
    type=int,
    default=100,
    help="length of a playlist's continuation (default 100)",
  )
  add(
    "--published_split",
    action="store_true",
    help="split Melon-50 with the mistake of the published script, by which "
    "most test songs are training songs too: only for comparison with numbers "
    "measured so",
  )
  add(
    "--tagging_mean",
    choices=contexts.MEANS,
    default=contexts.EMBEDDINGS,
    help="what of a clip's patches is averaged, with --tagging: their "
    "embeddings before the probe (default), or what the probe says of each",
  )


def parse(argv: Sequence[str] | None, about: str) -> argparse.Namespace:
  """Parses the command line.

  Args:
    argv: its words; None for those of the process.
    about: what --help says first.
  """
  parser = argparse.ArgumentParser(
    prog="python -m pcl_jax.evaluate",
    description=about,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  _add_what(parser)
  _add_how(parser)
  return parser.parse_args(argv)


def options_of(flags: argparse.Namespace) -> contexts.Options:
  """Returns what the flags decide of the tasks.

  Args:
    flags: of `parse`.

  Raises:
    InputError: a number is below 1.
  """
  for name in ("min_playlists", "largest_artist", "neighbours"):
    value = getattr(flags, name)
    if value is not None and value < 1:
      raise errors.InputError(f"--{name}={value} is at least 1.")
  return contexts.Options(
    split=catalogues.SPLIT_NAMES.index(flags.split),
    min_playlists=flags.min_playlists,
    largest_artist=flags.largest_artist,
    neighbours=flags.neighbours,
    published_split=flags.published_split,
    tagging_mean=flags.tagging_mean,
  )
