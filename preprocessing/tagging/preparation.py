"""Prepares a tagging set: chooses its lists, makes it aside, swaps it in."""

from collections.abc import Sequence
import contextlib
import os
import pathlib
import shutil
from typing import Any

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import locks
from pcl_jax.common import storage
from pcl_jax.evaluation.tagging import prepared_sets
from preprocessing.library import decoding
from preprocessing.tagging import gtzan
from preprocessing.tagging import magnatagatune
from preprocessing.tagging import mtg_jamendo
from preprocessing.tagging import tagging_clips
from preprocessing.tagging import tagging_coverage
from preprocessing.tagging import tagging_store

SETS = (magnatagatune.NAME, mtg_jamendo.NAME, gtzan.NAME)
# Set -> its flags -> their values, the default, and why; `tags` is a file.
_FLAGS = {
  magnatagatune.NAME: {
    "split": (
      magnatagatune.VARIANTS,
      None,
      "MagnaTagATune is measured on two splits that are not to be compared: "
      "25k has all clips, 21k only those with one of the 50 tags.",
    ),
    "tags": (None, None, ""),
  },
  mtg_jamendo.NAME: {
    "subset": (
      tuple(mtg_jamendo.SUBSETS),
      None,
      "MTG-Jamendo has four subsets of its tracks.",
    ),
    "split": (
      tuple(map(str, range(mtg_jamendo.NUM_SPLITS))),
      "0",
      "MTG-Jamendo has five splits.",
    ),
    "part": (
      (tagging_clips.WHOLE, tagging_clips.CENTRE),
      tagging_clips.WHOLE,
      "It is the part of each track that is used.",
    ),
  },
  gtzan.NAME: {},
}


def _check_choice(
  flag: str, value: str | None, allowed: Sequence[str], why: str
) -> None:
  if value not in allowed:
    found = "is not given" if value is None else f"is {value!r}"
    raise errors.InputError(
      f"--{flag} {found}; it is one of {', '.join(allowed)}. {why}"
    )


def read_lists(
  set_name: str, lists: pathlib.Path, **flags: str | None
) -> tagging_clips.ClipList:
  """Reads the lists of a set.

  Args:
    set_name: one of SETS.
    lists: the folder of the lists.
    **flags: those of `_FLAGS` that the set has; None counts as absent.

  Raises:
    InputError: a flag is missing, unknown or not the set's, or the lists are
      not usable.
  """
  _check_choice(
    "set", set_name, SETS, "These are the sets that can be prepared."
  )
  chosen, known = {}, _FLAGS[set_name]
  for flag, value in flags.items():
    if value is not None and flag not in known:
      raise errors.InputError(
        f"--{flag}={value} means nothing for {set_name}: leave it out."
      )
  for flag, (allowed, default, why) in known.items():
    chosen[flag] = flags.get(flag) or default
    if allowed is not None:
      _check_choice(flag, chosen[flag], allowed, why)
  if set_name == magnatagatune.NAME:
    tags = chosen["tags"] and file_names.path(chosen["tags"])
    return magnatagatune.read(lists, chosen["split"], tags)
  if set_name == mtg_jamendo.NAME:
    number = int(chosen["split"])
    return mtg_jamendo.read(lists, chosen["subset"], number, chosen["part"])
  return gtzan.read(lists)


def _begin(work: pathlib.Path, wanted: dict[str, Any]) -> None:
  """Makes the folder to work in; what fits in it from before stays."""
  path = work / tagging_store.BEGUN
  then = storage.read_made_json(path) if path.exists() else wanted
  if wanted["anew"]:
    if then != wanted:
      _empty(work)
  elif {**then, "anew": False} != wanted:
    raise errors.InputError(
      f"{work} was begun for {then['name']} from {then['source']}, with other "
      f"lists or settings than {wanted['name']} from {wanted['source']}, and "
      "the two are not to be mixed: give another --out, or start over with "
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
  if path.exists() and not storage.read_made_json(path)["anew"]:
    _empty(work)


def _finished(
  out: pathlib.Path, clip_list: tagging_clips.ClipList
) -> dict[str, Any] | None:
  """Returns the report of a finished set, or None if there is none."""
  if not out.exists():
    return None
  found = storage.read_made_json(out / tagging_coverage.FILE)
  if found["digest"] != clip_list.digest():
    raise errors.InputError(
      f"{out} is {found['name']}, made of other lists or with other settings "
      f"than {clip_list.name} asks for: give another --out, or replace it with "
      "--force."
    )
  return found


def _check_kind(out: pathlib.Path) -> None:
  """Refuses a folder of something else, which --force would delete."""
  if out.exists() and not (out / tagging_coverage.FILE).exists():
    raise errors.InputError(
      f"{out} exists and is no tagging set (it has no "
      f"{tagging_coverage.FILE}): give another --out."
    )


def _replace(out: pathlib.Path, ready: pathlib.Path) -> None:
  """Puts a complete set in the place of the old one, if there is one."""
  aside = out.with_name(out.name + ".replaced")
  shutil.rmtree(aside, ignore_errors=True)
  if out.exists():
    out.rename(aside)
  ready.rename(out)
  shutil.rmtree(aside, ignore_errors=True)


def _open_like(
  clip_list: tagging_clips.ClipList, folder: str | os.PathLike[str]
) -> prepared_sets.TaggingSet:
  """Opens a prepared set of the same tracks and the same part of them."""
  opened = prepared_sets.TaggingSet(folder)
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
    clip_list: the set's lists.
    source: the folder of its audio.
    out: the folder of the prepared set.
    features_from: folders of prepared sets of the same tracks and part of
      them; the features that these have are taken from there.
    allow_partial: prepares a set that lacks clips; its name says so.
    force: replaces a finished set, or starts a begun one over.
    threads: how many files are decoded at once.

  Returns:
    The content of coverage.json.

  Raises:
    InputError: the audio is absent, clips are missing or unreadable, a split
      has none, or the output is taken by something else.
  """
  work = out.with_name(out.name + ".partial")
  with locks.hold(work, "preprocessing.tagging_sets"):
    _check_kind(out)
    found = None if force else _finished(out, clip_list)
    if found is not None:
      print(f"nothing to do: {out} is {found['name']}; --force replaces it")
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
      coverage = tagging_coverage.cover(source, clip_list)
      writer = tagging_store.Writer(
        work, source, coverage.files, clip_list, sets
      )
      found = tagging_coverage.report(clip_list, coverage, [])
      tagging_coverage.check(found, work, allow_partial)
      notes = writer.write(threads or decoding.default_threads())
      found = tagging_coverage.report(clip_list, coverage, notes)
      tagging_coverage.check(found, work, allow_partial)
      ready = writer.finish(
        tagging_coverage.metadata(clip_list, found),
        f"{found['name']}: log-mel features, tags and ids of {found['clips']} "
        f"clips (audio used: {found['part']}).",
      )
      storage.write_json(ready / tagging_coverage.FILE, found)
      _replace(out, ready)
      _empty(work)
  with contextlib.suppress(OSError):  # Unless there is something in it.
    work.rmdir()
  return found
