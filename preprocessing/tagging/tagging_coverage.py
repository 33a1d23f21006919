"""What of a tagging set can be prepared: audio, counts, refusal, summary."""

import collections
from collections.abc import Iterable, Sequence
import dataclasses
import pathlib
from typing import Any

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import programs
from pcl_jax.common import storage
from pcl_jax.evaluation.tagging import prepared_sets
from pcl_jax.library import music_files
from preprocessing.tagging import tagging_clips
from preprocessing.tagging import tagging_store

FILE = "coverage.json"
_LOW = ".low"  # MTG-Jamendo's smaller files are called 948.low.mp3.
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Coverage:
  """Clips and files, matched.

  Attributes:
    files: id of a clip -> its file, relative to the folder.
    missing: clips without a file.
    without_labels: files that the lists do not have.
  """

  files: dict[str, str]
  missing: tuple[tagging_clips.Clip, ...]
  without_labels: tuple[str, ...]


def _key(path: str) -> str:
  """Returns a clip's folder and name without suffix; copies share no more."""
  folder, _, name = path.rpartition("/")
  stem = name.rpartition(".")[0] or name
  return f"{folder.rpartition('/')[2]}/{stem.removesuffix(_LOW)}"


def cover(source: pathlib.Path, clip_list: tagging_clips.ClipList) -> Coverage:
  """Looks for the audio of all clips anywhere in the folder `source`.

  Raises:
    InputError: the folder is absent, has none of the clips, or has a clip in
      two files.
  """
  if not source.is_dir():
    raise errors.InputError(
      f"{source} is not a folder: give the folder of the set's audio as "
      "--source."
    )
  found: dict[str, list[str]] = {}
  for path in music_files.look_through(source).sound:
    found.setdefault(_key(path), []).append(path)
  files, missing = {}, []
  for clip in clip_list.clips:
    paths = found.get(_key(clip.path), [])
    if len(paths) > 1:
      raise errors.InputError(
        f"{source} has the clip {clip.path} in {len(paths)} files, "
        f"{paths[0]} and {paths[1]}: give the folder of one copy as --source."
      )
    if paths:
      files[clip.id] = paths[0]
    else:
      missing.append(clip)
  if not files:
    raise errors.InputError(
      f"{source} has none of the {len(clip_list.clips)} clips of "
      f"{clip_list.name}; looked for files named like "
      f"{clip_list.clips[0].path}, in any audio format and at any depth, and "
      f"found {sum(map(len, found.values()))} other audio files. Give the "
      "folder of the set's audio as --source."
    )
  known = {_key(clip.path) for clip in clip_list.clips}
  for paths in clip_list.excluded.values():
    known |= {_key(path) for path in paths}
  others = [p for key, some in found.items() if key not in known for p in some]
  return Coverage(files, tuple(missing), tuple(sorted(others)))


def _shown(names: Iterable[str]) -> str:
  names = list(names)
  more = len(names) - _SHOWN
  return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def report(
  clip_list: tagging_clips.ClipList,
  coverage: Coverage,
  notes: Sequence[tagging_store.Note],
) -> dict[str, Any]:
  """Counts what there is and what is left out, as coverage.json has it.

  Args:
    clip_list: the set's lists.
    coverage: which of its clips have audio.
    notes: what became of the clips, once they were decoded.
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
  tags = {split: set() for split in tagging_clips.SPLITS}
  for clip in clips:
    tags[clip.split].update(clip.labels)
  empty = {
    split: [
      tag for i, tag in enumerate(clip_list.tags) if i not in tags[number]
    ]
    for number, split in tagging_clips.SPLITS.items()
  }
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
    "tags_without_clips": {
      split: some for split, some in empty.items() if some
    },
    "missing": missing,
    "unreadable": {
      i: f"{coverage.files[i]}: {unreadable[i]}" for i in unreadable
    },
    "audio_without_labels": list(coverage.without_labels),
  }


def check(
  found: dict[str, Any], work: pathlib.Path, allow_partial: bool
) -> None:
  """Writes the report `found` to `work`, and refuses a partial set.

  Raises:
    InputError: clips are missing and `allow_partial` is not given, or a split
      has no clip at all.
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
  reasons = [
    f"{len(found[what])} {words} ({_shown(found[what].values())})"
    for what, words in (
      ("missing", "have no audio"),
      ("unreadable", "cannot be read"),
    )
    if found[what]
  ]
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
  """Returns what the prepared set says about itself."""
  lacking = {r: len(found[r]) for r in ("missing", "unreadable") if found[r]}
  return {
    "format_version": prepared_sets.FORMAT_VERSION,
    "name": found["name"],
    "partial": found["partial"],
    "part": clip_list.part,
    "tags": list(clip_list.tags),
    "one_each": clip_list.single_label,
    "left_out": found["left_out_by_rule"] | lacking,
    "feature": melspectrogram.SETTINGS.as_dict(),
  }


def summary(found: dict[str, Any], out: pathlib.Path) -> str:
  """Describes the report `found` on the set in `out` in a few lines."""
  splits = ", ".join(f"{n} {split}" for split, n in found["splits"].items())
  lines = [f"{out}: {found['name']}, {found['clips']} clips ({splits})"]
  for reason, count in found["left_out_by_rule"].items():
    lines.append(f"left out by the split's rule: {count} ({reason})")
  for what in ("missing", "unreadable"):
    if found[what]:
      names = _shown(found[what].values())
      lines.append(f"{what}: {len(found[what])} ({names})")
  if found["known_to_be_damaged"]:
    names = ", ".join(found["known_to_be_damaged"])
    lines.append(f"known to be damaged in public copies, and so here: {names}")
  if others := found["audio_without_labels"]:
    lines.append(
      f"audio files that the lists do not have: {len(others)} "
      f"({_shown(others)})"
    )
  for split, tags in found["tags_without_clips"].items():
    lines.append(
      f"tags without a clip in {split}, which have no score there: "
      f"{len(tags)} ({_shown(tags)})"
    )
  evaluate = programs.fit("python -m pcl_jax.evaluate")
  lines.append(
    f"{out / FILE} has all of it; next: {evaluate} --workdir=RUN "
    f"--tagging={out}"
  )
  return "\n".join(map(file_names.shown, lines))
