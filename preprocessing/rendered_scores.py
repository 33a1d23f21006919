r"""Makes a data set of scores of music21's corpus, played by fluidsynth.

  pip install "pcl_jax[scores]"
  apt-get install fluidsynth fluid-soundfont-gm
  python -m preprocessing.rendered_scores --out=data/scores --scores=1000

The scores are drawn by --seed, of each composer in turn, so that the composers
of a thousand scores do not outweigh the others. The artist is the composer, who
is the folder that the score lies in. The album is the collection: the folders
below, or the name without the number at its end (bwv121 of bwv121.6). Folders
of exercises, and of files with many tunes each, are left out. Instruments that
can play each part, of one family for each score, and the tempo (0.85 to 1.2
times the written one) are drawn, too. They depend on seed and score alone.

Scores that cannot be parsed are counted and named; where only the repeats are
wrong, the score is played without them. Recordings of less than 30 s are left
out, as preprocessing.own_library does, and playlists are the albums.

Besides what preprocessing.own_library writes, --out has audio/ (the recordings,
16 kHz), scores.json (how each score was played, or why it failed) and
licences.json (of the corpus and the soundfont).

Interrupted, the same command goes on; with a larger --scores it adds scores.
"""

from collections.abc import Sequence

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.common import locks
from pcl_jax.data.splits import song_groups
from preprocessing.library import decoding
from preprocessing.library import library_build
from preprocessing.library import library_report
from preprocessing.library import library_settings
from preprocessing.scores import rendering
from preprocessing.scores import score_choice


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the data set."""
  parser = command_line.parser("preprocessing.rendered_scores", __doc__)
  add, folder = parser.add_argument, {"type": command_line.path}
  add("--out", **folder, required=True, help="the data set's folder")
  text = "how many scores (1000)"
  add("--scores", type=command_line.count, default=1000, help=text)
  command_line.add_numbers(parser, {"seed": (0, "seed of the draws")})
  add("--soundfont", **folder, help="an .sf2 file (FluidR3_GM of the system)")
  text = "folder of COMPOSER/SCORE (music21's corpus)"
  add("--corpus", **folder, help=text)
  text = "scores rendered, and files decoded, at once (cores, at most 8)"
  add("--processes", type=command_line.count, help=text)
  text = "what goes to one part as a whole (as it is in --out; at first song)"
  add("--split_by", choices=song_groups.SPLIT_BY, help=text)
  text = "make it again (nothing is decoded where only the split is another)"
  add("--force", action="store_true", help=text)
  args = parser.parse_args(argv)
  processes = args.processes or decoding.default_threads()
  music21_corpus = score_choice.corpus_folder()
  corpus = args.corpus or music21_corpus
  soundfont = rendering.find_soundfont(args.soundfont)
  scores = score_choice.choose(corpus, args.scores, args.seed)
  library_settings.check_packages()
  jax_setup.start()
  with locks.hold(args.out, parser.prog):
    made = {}

    def fill() -> None:
      how = {"seed": args.seed, "processes": processes}
      made.update(
        rendering.render_all(scores, corpus, args.out, soundfont, **how)
      )

    report = library_build.build_library(
      args.out / rendering.AUDIO,
      args.out,
      threads=processes,
      force=args.force,
      split_by=args.split_by,
      artist_folder="none",
      albums_as_playlists=True,
      fill=fill,
    )
  print(rendering.summary(made, args.out / rendering.RECORD))
  print(library_report.summary(report, args.out))


if __name__ == "__main__":
  errors.run_command(main)
