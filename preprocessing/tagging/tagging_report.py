"""What of a tagging set could be prepared: counts, refusal and words."""

import collections
from collections.abc import Sequence
import pathlib
from typing import Any

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.evaluation.tagging import tagging_set
from preprocessing.tagging import tagging_clips
from preprocessing.tagging import tagging_coverage
from preprocessing.tagging import tagging_store

FILE = "coverage.json"


def _empty_tags(
  clip_list: tagging_clips.ClipList, gone: set[str]
) -> dict[str, list[str]]:
  """Returns split -> tags that none of its clips has, where there are any."""
  counts: dict[int, collections.Counter] = collections.defaultdict(
    collections.Counter
  )
  for clip in clip_list.clips:
    if clip.id not in gone:
      counts[clip.split].update(clip.labels)
  empty = {
    name: [tag for i, tag in enumerate(clip_list.tags) if not counts[split][i]]
    for split, name in tagging_clips.SPLITS.items()
  }
  return {name: tags for name, tags in empty.items() if tags}


def report(
  clip_list: tagging_clips.ClipList,
  coverage: tagging_coverage.Coverage,
  notes: Sequence[tagging_store.Note],
) -> dict[str, Any]:
  """Counts what there is and what is left out.

  Args:
    clip_list: the set's lists.
    coverage: which of its clips have audio.
    notes: what became of the clips, once they were decoded.

  Returns:
    The content of coverage.json; plain values, fit for json.
  """
  unreadable = {k: why for note in notes for k, why in note.unreadable.items()}
  short = [clip for note in notes for clip in note.too_short]
  missing = {clip.id: clip.path for clip in coverage.missing}
  lacking = [*missing, *unreadable]
  known = [clip for clip in lacking if clip in clip_list.may_lack]
  gone = {*lacking, *short}
  clips = [clip for clip in clip_list.clips if clip.id not in gone]
  wanted = len(clip_list.clips) - len(short) - len(known)
  wanted = max(wanted, clip_list.published or 0)
  name, partial = clip_list.name, len(clips) < wanted
  if partial:
    name += f" partial ({len(clips)} of {wanted} clips)"
  left_out = {r: len(paths) for r, paths in clip_list.excluded.items()}
  splits = collections.Counter(clip.split for clip in clips)
  return {
    "name": name,
    "partial": partial,
    "digest": clip_list.digest(),
    "part": clip_list.part,
    "clips": len(clips),
    "wanted": wanted,
    "published": clip_list.published,
    "listed": len(clip_list.clips) + sum(left_out.values()),
    "splits": {s: splits[i] for i, s in tagging_clips.SPLITS.items()},
    "left_out_by_rule": left_out | ({"too short": len(short)} if short else {}),
    "known_to_be_damaged": known,
    "tags_without_clips": _empty_tags(clip_list, gone),
    "missing": missing,
    "unreadable": {
      i: f"{coverage.files[i]}: {unreadable[i]}" for i in unreadable
    },
    "audio_without_labels": list(coverage.without_labels),
  }


def check(
  found: dict[str, Any], work: pathlib.Path, allow_partial: bool
) -> None:
  """Writes the report, and refuses a partial set unless it is allowed.

  Args:
    found: the report.
    work: folder to write it in.
    allow_partial: whether a set that lacks clips is prepared.

  Raises:
    InputError: clips are lacking, or a split has none at all.
  """
  storage.write_json(work / FILE, found)
  for split, clips in found["splits"].items():
    if not clips:
      raise errors.InputError(
        f"{found['name']}: no clip of the split {split} can be used, so "
        f"nothing can be measured. {work / FILE} names what is missing."
      )
  if not found["partial"] or allow_partial:
    return
  reasons = []
  if found["missing"]:
    names = tagging_coverage.shown(found["missing"].values())
    reasons.append(f"{len(found['missing'])} have no audio ({names})")
  if found["unreadable"]:
    names = tagging_coverage.shown(found["unreadable"].values())
    reasons.append(f"{len(found['unreadable'])} cannot be read ({names})")
  if found["published"]:
    reasons.append(
      f"the lists are not the published ones, which have {found['published']} "
      "clips in this split"
    )
  raise errors.InputError(
    f"{found['name']}: {'; '.join(reasons)}. A result on a part of a set is "
    f"not the set's: add what is missing ({work / FILE} names all), or give "
    "--allow_partial, and the result's name will say so."
  )


def metadata(
  clip_list: tagging_clips.ClipList, found: dict[str, Any]
) -> dict[str, Any]:
  """Returns what the prepared set says of itself, beside its records.

  Args:
    clip_list: the set's lists.
    found: the report.
  """
  left_out = dict(found["left_out_by_rule"])
  for reason in ("missing", "unreadable"):
    if found[reason]:
      left_out[reason] = len(found[reason])
  return {
    "format_version": tagging_set.FORMAT_VERSION,
    "name": found["name"],
    "partial": found["partial"],
    "part": clip_list.part,
    "tags": list(clip_list.tags),
    "one_each": clip_list.one_each,
    "left_out": left_out,
    "feature": melspectrogram.SETTINGS.as_dict(),
  }


def description(found: dict[str, Any]) -> str:
  """Describes a prepared set to whom it is given."""
  return (
    f"{found['name']}: log-mel features, tags and ids of {found['clips']} "
    f"clips (audio used: {found['part']})."
  )


def _tags_in_words(found: dict[str, Any]) -> list[str]:
  return [
    f"tags without a clip in {split}, which have no score there: "
    f"{len(tags)} ({tagging_coverage.shown(tags)})"
    for split, tags in found["tags_without_clips"].items()
  ]


def summary(found: dict[str, Any], out: pathlib.Path) -> str:
  """Words the report for people, in a few lines.

  Args:
    found: the report.
    out: folder of the prepared set.
  """
  splits = ", ".join(f"{n} {split}" for split, n in found["splits"].items())
  lines = [f"{out}: {found['name']}, {found['clips']} clips ({splits})"]
  for reason, count in found["left_out_by_rule"].items():
    lines.append(f"left out by the split's rule: {count} ({reason})")
  for what in ("missing", "unreadable"):
    if found[what]:
      names = tagging_coverage.shown(found[what].values())
      lines.append(f"{what}: {len(found[what])} ({names})")
  if found["known_to_be_damaged"]:
    names = ", ".join(found["known_to_be_damaged"])
    lines.append(f"known to be damaged in public copies, and so here: {names}")
  others = found["audio_without_labels"]
  if others:
    lines.append(
      f"audio files that the lists do not have: {len(others)} "
      f"({tagging_coverage.shown(others)})"
    )
  lines += _tags_in_words(found)
  lines.append(
    f"all of it is in {out / FILE}; next: python -m pcl_jax.evaluate "
    f"--workdir=RUN --tagging={out}"
  )
  # File names are bytes: what is no character is shown as an escape.
  return "\n".join(lines).encode(errors="backslashreplace").decode()
