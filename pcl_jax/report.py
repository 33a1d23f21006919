"""Writes a page about a run: what was trained, how good it is, and its songs.

  python -m pcl_jax.report --workdir=runs/demo
  python -m pcl_jax.report --workdir=runs/mine --audio=~/music
  python -m pcl_jax.report --compare runs/a runs/b --out=a_and_b.html

The page is one file that opens in a browser, without a network or a server. It
has the curves of training, the results of pcl_jax.evaluate with their
intervals, a map of the songs, the nearest songs of each song, and the audit for
leakage. What the run does not have yet is left out, and the page says so. With
--compare, runs that were evaluated are on one page, and each is tested against
the first one.

Songs can be played where there is audio: the clips of the sample, and the files
of an own library. The page addresses these where they lie, relative to itself.
"""

import argparse
from collections.abc import Sequence

from absl import logging

from pcl_jax.common import command_line
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.pages import report_page


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.parser("pcl_jax.report", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  add("--workdir", **path, help="folder of the run that the page is about")
  text = "folders of evaluated runs, or evaluated files of vectors; without "
  text += "--workdir the page is about the first one"
  add("--compare", **path, nargs="+", metavar="RUN", default=[], help=text)
  text = "the page (default: report.html in the folder of the run)"
  add("--out", **path, help=text)
  add("--data", help="data set of the songs (default: the one of the run)")
  text = "folder of the songs' audio, if it is not where the data set says: of "
  text += "an own library, or of files that are named by the songs' ids"
  add("--audio", **path, help=text)
  flags = parser.parse_args(argv)
  runs = [flags.workdir] if flags.workdir else []
  flags.runs = list(dict.fromkeys(runs + flags.compare))
  if not flags.runs:
    parser.error("give --workdir, or --compare with two runs or more")
  return flags


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line, writes the page and says where it is."""
  flags = _parse(argv)
  jax_setup.start()
  made = report_page.write(
    flags.runs, flags.out, data_dir=flags.data, audio=flags.audio
  )
  for note in made.notes:
    console.warn(note)
  page, *beside = made.paths
  about = f"{page.stat().st_size / 1e6:.1f} MB"
  if made.songs:
    about += f", {made.songs} songs on the map ({made.method})"
    about += f", {made.heard} with audio"
  print(f"report: {page} ({about})")
  if beside:
    print(f"its data are in {beside[0].parent}, which belongs to it")


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns that it only reads.
  errors.run_command(main)
