r"""Prepares a published tagging set, from a folder you have, for evaluation.

  python -m preprocessing.tagging_sets --set=magnatagatune --split=21k \
    --source=MTAT --out=data/tagging/magnatagatune_21k
  python -m preprocessing.tagging_sets --set=mtg_jamendo --subset=moodtheme \
    --split=0 --lists=mtg-jamendo-dataset --source=AUDIO_LOW \
    --out=data/tagging/moodtheme_0
  python -m preprocessing.tagging_sets --set=gtzan --lists=LISTS \
    --source=GTZAN --out=data/tagging/gtzan

Nothing is downloaded. --source is the folder of the audio, in any format and at
any depth: the name of a clip's file and of its folder identify the clip
(f/name.mp3, 48/948.low.mp3, blues/blues.00029.wav). --lists is the folder of
the published lists; without it, they are searched for in --source.

The lists are checked, then which clips have audio. A set that lacks clips, or
whose audio cannot be read, is refused, and OUT.partial/coverage.json names all
of them; with --allow_partial it is prepared, and its name says "partial (x of y
clips)" in every result: it is not the published test.

--out becomes a data set of TensorFlow Datasets in ArrayRecord files, which
tfds.builder_from_directory reads, TensorFlow or not: the feature of each clip,
its tags and its id, in the splits train, validation and test. Interrupted, the
same command goes on. A finished set is left as it is; --force replaces it.
"""

from collections.abc import Sequence

from pcl_jax.common import command_line
from pcl_jax.common import errors
from preprocessing.tagging import mtg_jamendo
from preprocessing.tagging import preparation
from preprocessing.tagging import tagging_coverage


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and prepares the set."""
  parser = command_line.parser("preprocessing.tagging_sets", __doc__)
  add = parser.add_argument
  add("--set", required=True, choices=preparation.SETS, help="which set")
  folder = {"type": command_line.path}
  add("--source", **folder, required=True, help="folder of the set's audio")
  add("--out", **folder, required=True, help="folder of the prepared set")
  add("--lists", **folder, help="folder of the published lists (--source)")
  add("--split", help="MagnaTagATune: 25k or 21k; MTG-Jamendo: 0 to 4 (0)")
  add("--subset", help=f"MTG-Jamendo: {', '.join(mtg_jamendo.SUBSETS)}")
  add("--part", help="MTG-Jamendo: whole tracks or their centre 29.1 s (whole)")
  add("--tags", help="MagnaTagATune: file of 50 tags (the most frequent)")
  add(
    "--features_from",
    metavar="DIR[,DIR]",
    help="prepared sets, of other splits or subsets, whose features are taken "
    "instead of decoding a track again",
  )
  add("--allow_partial", action="store_true", help="prepare what there is")
  add("--force", action="store_true", help="replace a finished set")
  text = "files decoded at once (cores, at most 8)"
  add("--threads", type=command_line.count, help=text)
  args = parser.parse_args(argv)
  clip_list = preparation.read_lists(
    args.set,
    args.lists or args.source,
    split=args.split,
    subset=args.subset,
    part=args.part,
    tags=args.tags,
  )
  report = preparation.prepare(
    clip_list,
    args.source,
    args.out,
    features_from=[one for one in (args.features_from or "").split(",") if one],
    allow_partial=args.allow_partial,
    force=args.force,
    threads=args.threads,
  )
  print(tagging_coverage.summary(report, args.out))


if __name__ == "__main__":
  errors.run_command(main)
