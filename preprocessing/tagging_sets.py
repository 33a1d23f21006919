r"""Prepares a published tagging set, from a folder you have, for evaluation.

  python -m preprocessing.tagging_sets --set=magnatagatune --split=21k \
    --source=MTAT --out=data/tagging/magnatagatune_21k
  python -m preprocessing.tagging_sets --set=mtg_jamendo --subset=moodtheme \
    --split=0 --lists=mtg-jamendo-dataset --source=AUDIO_LOW \
    --out=data/tagging/moodtheme_0
  python -m preprocessing.tagging_sets --set=gtzan --lists=LISTS \
    --source=GTZAN --out=data/tagging/gtzan

Nothing is downloaded. --source is the folder of the audio, in any format and at
any depth: a clip is known by its file's name and the folder that lies in
(f/name.mp3, 48/948.low.mp3, blues/blues.00029.wav). --lists is the folder of
the published lists; where it is not given, they are looked for in --source.

The lists are checked, then which clips have audio. A set that lacks clips, or
whose audio cannot be read, is refused, and OUT.partial/coverage.json names all
of them; with --allow_partial it is prepared, and its name says "partial (x of y
clips)" in every result: it is not the published test.

--out becomes a data set of TensorFlow Datasets in ArrayRecord files, which
tfds.builder_from_directory reads, TensorFlow or not: the feature of each clip,
its tags and its id, in the splits train, validation and test. Interrupted, the
same command goes on. A finished set is left as it is; --force makes it anew.
"""

import argparse
from collections.abc import Sequence
import contextlib
import os
import pathlib
import shutil
from typing import Any

from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.common import storage
from pcl_jax.evaluation.tagging import tagging_set
from pcl_jax.library import library_files
from preprocessing.library import decoding
from preprocessing.tagging import gtzan
from preprocessing.tagging import magnatagatune
from preprocessing.tagging import mtg_jamendo
from preprocessing.tagging import tagging_clips
from preprocessing.tagging import tagging_coverage
from preprocessing.tagging import tagging_report
from preprocessing.tagging import tagging_store

SETS = (magnatagatune.NAME, mtg_jamendo.NAME, gtzan.NAME)
# Which flags a set has, beside those of all.
_FLAGS = {
  magnatagatune.NAME: ("split", "tags"),
  mtg_jamendo.NAME: ("subset", "split", "part"),
  gtzan.NAME: (),
}


def _check_flags(set_name: str, flags: dict[str, Any]) -> None:
  for flag, value in flags.items():
    if value is not None and flag not in _FLAGS[set_name]:
      raise errors.InputError(
        f"--{flag}={value} means nothing for {set_name}: leave it out."
      )


def _one_of(
  flag: str, value: str | None, allowed: Sequence[str], why: str
) -> str:
  if value not in allowed:
    found = "is not given" if value is None else f"is {value!r}"
    raise errors.InputError(
      f"--{flag} {found}; it is one of {', '.join(allowed)}. {why}"
    )
  return value


def read_lists(
  set_name: str,
  lists: pathlib.Path,
  *,
  split: str | None = None,
  subset: str | None = None,
  part: str | None = None,
  tags: str | None = None,
) -> tagging_clips.ClipList:
  """Reads the lists of a set.

  Args:
    set_name: one of SETS.
    lists: folder of the lists.
    split: `25k` or `21k`, or the number of MTG-Jamendo's split (0).
    subset: of MTG-Jamendo.
    part: of MTG-Jamendo's tracks, `whole` (the default) or `centre`.
    tags: file with MagnaTagATune's 50 tags in their order, or None.

  Raises:
    InputError: a choice is missing, unknown or not the set's, or the lists are
      not usable.
  """
  _one_of("set", set_name, SETS, "These are the sets that can be prepared.")
  chosen = {"split": split, "subset": subset, "part": part, "tags": tags}
  _check_flags(set_name, chosen)
  if set_name == magnatagatune.NAME:
    _one_of(
      "split",
      split,
      magnatagatune.VARIANTS,
      "MagnaTagATune is measured on two splits that are not to be compared: "
      "25k has all clips, 21k only those with one of the 50 tags.",
    )
    tags_file = pathlib.Path(tags).expanduser() if tags else None
    return magnatagatune.read(lists, split, tags_file)
  if set_name == mtg_jamendo.NAME:
    numbers = [str(number) for number in range(mtg_jamendo.NUM_SPLITS)]
    why = "MTG-Jamendo has"
    subsets = list(mtg_jamendo.SUBSETS)
    _one_of("subset", subset, subsets, f"{why} four subsets of its tracks.")
    _one_of("split", split or "0", numbers, f"{why} five splits.")
    parts = [tagging_clips.WHOLE, tagging_clips.CENTRE]
    part = part or tagging_clips.WHOLE
    _one_of("part", part, parts, "It is the part of each track that is used.")
    return mtg_jamendo.read(lists, subset, int(split or 0), part)
  return gtzan.read(lists)


def _begin(work: pathlib.Path, wanted: dict[str, Any]) -> None:
  """Makes the folder to work in; what fits in it from before stays."""
  path = work / tagging_store.BEGUN
  then = library_files.read_json(path) if path.exists() else wanted
  if wanted["anew"]:
    if then != wanted:
      _empty(work)
  elif {**then, "anew": False} != wanted:
    raise errors.InputError(
      f"{work} was begun for {then['name']} from {then['source']}, with other "
      f"lists or settings than {wanted['name']} from {wanted['source']}, and "
      "the two are not to be mixed: give another --out, or begin anew with "
      "--force."
    )
  else:
    wanted = then
  storage.write_json(path, wanted)


def _empty(work: pathlib.Path) -> None:
  for path in work.iterdir():
    if path.is_dir():
      shutil.rmtree(path)
    elif path.name not in locks.FILES:
      path.unlink()


def _tidy(work: pathlib.Path) -> None:
  """Removes what a run left that ended just after its set was complete."""
  path = work / tagging_store.BEGUN
  if path.exists() and not library_files.read_json(path)["anew"]:
    _empty(work)


def _finished(
  out: pathlib.Path, clip_list: tagging_clips.ClipList
) -> dict[str, Any] | None:
  """Returns the report of a finished set, or None if there is none."""
  if not out.exists():
    return None
  report = out / tagging_report.FILE
  if not report.exists():
    raise errors.InputError(
      f"{out} exists and is no tagging set (it has no {tagging_report.FILE}): "
      "give another --out."
    )
  found = library_files.read_json(report)
  if found["digest"] != clip_list.digest():
    raise errors.InputError(
      f"{out} is {found['name']}, made of other lists or with other settings "
      f"than {clip_list.name} asks for: give another --out, or make it anew "
      "with --force."
    )
  return found


def _replace(out: pathlib.Path, ready: pathlib.Path) -> None:
  """Puts a complete set in the place of the old one, if there is one."""
  aside = out.with_name(out.name + ".replaced")
  shutil.rmtree(aside, ignore_errors=True)
  if out.exists():
    out.rename(aside)
  ready.rename(out)
  shutil.rmtree(aside, ignore_errors=True)


def prepare(
  clip_list: tagging_clips.ClipList,
  source: pathlib.Path,
  out: pathlib.Path,
  *,
  features_from: Sequence[str | os.PathLike[str]] = (),
  allow_partial: bool = False,
  force: bool = False,
  threads: int | None = None,
) -> dict[str, Any]:
  """Prepares a set, or goes on preparing it.

  Args:
    clip_list: what its lists say.
    source: folder of its audio.
    out: folder of the prepared set.
    features_from: folders of prepared sets of the same tracks and part of
      them; the features that these have are taken from there.
    allow_partial: prepares a set that lacks clips; its name says so.
    force: makes a finished or begun set anew.
    threads: how many files are decoded at once.

  Returns:
    The content of coverage.json.

  Raises:
    InputError: the audio is absent, clips are missing or unreadable, a split
      has none, or the output is taken by something else.
  """
  work = out.with_name(out.name + ".partial")
  with locks.hold(work, "preprocessing.tagging_sets"):
    found = None if force else _finished(out, clip_list)
    if found is not None:
      print(f"nothing to do: {out} is {found['name']}; --force makes it anew")
      _tidy(work)
    else:
      sets = [_open_like(clip_list, folder) for folder in features_from]
      wanted = {
        "name": clip_list.name,
        "digest": clip_list.digest(),
        "source": os.fspath(source.resolve()),
        "anew": force,
      }
      _begin(work, wanted)
      threads = threads or decoding.default_threads()
      found = _make(clip_list, source, out, work, sets, allow_partial, threads)
  with contextlib.suppress(OSError):  # Unless there is something in it.
    work.rmdir()
  return found


def _open_like(
  clip_list: tagging_clips.ClipList, folder: str | os.PathLike[str]
) -> tagging_set.TaggingSet:
  """Opens a prepared set of the same tracks and the same part of them."""
  opened = tagging_set.TaggingSet(folder)
  theirs, ours = (
    (one.name.partition("-")[0], one.part) for one in (opened, clip_list)
  )
  if theirs != ours:
    raise errors.InputError(
      f"{folder} is of {theirs[0]}, part {theirs[1]}, and {clip_list.name} of "
      f"{ours[0]}, part {ours[1]}: features of one are not those of the other. "
      "Leave it out of --features_from."
    )
  return opened


def _make(
  clip_list: tagging_clips.ClipList,
  source: pathlib.Path,
  out: pathlib.Path,
  work: pathlib.Path,
  features_from: Sequence[tagging_set.TaggingSet],
  allow_partial: bool,
  threads: int,
) -> dict[str, Any]:
  """Makes the set in `work` and moves it to `out`; returns coverage.json."""
  coverage = tagging_coverage.cover(source, clip_list)
  report = tagging_report.report(clip_list, coverage, [])
  tagging_report.check(report, work, allow_partial)
  writer = tagging_store.Writer(
    work, source, coverage.files, clip_list, features_from
  )
  notes = writer.write(threads)
  report = tagging_report.report(clip_list, coverage, notes)
  tagging_report.check(report, work, allow_partial)
  ready = writer.finish(
    out_name(clip_list),
    tagging_report.metadata(clip_list, report),
    tagging_report.description(report),
  )
  storage.write_json(ready / tagging_report.FILE, report)
  _replace(out, ready)
  _empty(work)
  return report


def out_name(clip_list: tagging_clips.ClipList) -> str:
  """Returns the name of a set as TensorFlow Datasets wants it."""
  return clip_list.name.replace("-", "_")


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and prepares the set."""
  parser = argparse.ArgumentParser(
    prog="python -m preprocessing.tagging_sets",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--set", required=True, choices=SETS, help="which set")
  add("--source", required=True, help="folder of the set's audio")
  add("--out", required=True, help="folder of the prepared set")
  add("--lists", help="folder of the published lists (that of the audio)")
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
  add("--force", action="store_true", help="make it anew")
  add("--threads", type=int, help="files decoded at once (cores, at most 8)")
  args = parser.parse_args(argv)
  if args.threads is not None and args.threads < 1:
    parser.error(f"--threads is {args.threads}; it is at least 1")
  source = pathlib.Path(args.source).expanduser()
  out = pathlib.Path(args.out).expanduser()
  clip_list = read_lists(
    args.set,
    pathlib.Path(args.lists or args.source).expanduser(),
    split=args.split,
    subset=args.subset,
    part=args.part,
    tags=args.tags,
  )
  report = prepare(
    clip_list,
    source,
    out,
    features_from=[one for one in (args.features_from or "").split(",") if one],
    allow_partial=args.allow_partial,
    force=args.force,
    threads=args.threads,
  )
  print(tagging_report.summary(report, out))


if __name__ == "__main__":
  errors.run_command(main)
