"""Messages about the data set of an own library."""

from collections.abc import Iterable
import pathlib
from typing import Any

from pcl_jax.common import file_names
from pcl_jax.common import programs
from pcl_jax.common import usable_cores
from pcl_jax.training import run_sizes
from preprocessing.library import song_records

REPORT = "library.json"
ANY = "any strategy"  # A key of what is unavailable.
_SHOWN_FILES = 5
_SHOWN_CHARS = 120
# What data sets of earlier versions do not say.
_UNSAID: dict[str, Any] = {
  "settings": {},
  "names": {
    "most_songs": [],
    "by_album_artist": 0,
    "from_folders": [],
    "split": {},
    "merged": {},
    "no_names": {},
  },
  "albums_as_playlists": 0,
  "too_short": 0,
  "silent": 0,
  "silent_mix": 0,
  "passed_over": "",
}


def of_pairs(method: str) -> str:
  """Returns the key of a pair method in what is unavailable."""
  return f"A-IM and Hybrid with {method} pairs"


def change(
  data_dir: pathlib.Path,
  changes: dict[str, int] | None,
  *,
  anew: bool,
  split_kept: bool,
) -> str:
  """Describes how a data set differs from the one it has replaced."""
  words = {
    "added": "added",
    "moved": "moved or renamed",
    "removed": "removed",
    "changed": "changed",
    "touched": "with other tags or time but the same audio",
    "tried_again": "left out before and tried again",
  }
  if not changes:
    said = ["all as before"]
  else:
    always = "added", "removed", "changed"
    said = [
      f"{changes[name]} {text}"
      for name, text in words.items()
      if changes[name] or name in always
    ]
    if not anew:
      said.append(f"{changes['kept']} kept without decoding")
    if changes["playlist_files"]:
      said.append(f"{changes['playlist_files']} playlist files not as before")
  split = (
    "Known songs keep their part of the split; the vectors were made again"
    if split_kept
    else "The split was drawn anew and the vectors were made again"
  )
  return (
    f"{data_dir} was brought up to date: audio files {', '.join(said)}. "
    f"{split}: a run trained on the old data set stays usable, and its "
    "evaluation asks for no song that it learned from, but it cannot be "
    "continued. Train in a new --workdir."
  )


def left_out(report: dict[str, Any], folder: pathlib.Path) -> list[str]:
  """Describes how many songs are left out, and why; in one line, or none.

  Args:
    report: content of library.json.
    folder: where the list of these songs lies.
  """
  if not report["left_out"]:
    return []
  parts = {
    "duplicates of another": len(report["duplicates"]),
    "no longer there": report["gone"],
    f"shorter than {report['settings'].get('min_s', 0):g} s, --min_s": report[
      "too_short"
    ],
    "silent": report["silent"],
    "silent but for their loudest channel, --channels=loudest --force": report[
      "silent_mix"
    ],
  }
  parts["not usable"] = report["left_out"] - sum(parts.values())
  words = ", ".join(f"{n} {text}" for text, n in parts.items() if n)
  where = folder / song_records.SKIPPED
  return [f"{report['left_out']} songs left out ({words}): {where} says why"]


def _damaged(report: dict[str, Any]) -> list[str]:
  """Describes the songs of which a little is missing."""
  damaged = report.get("damaged")  # None in those of earlier versions.
  if not damaged:
    return []
  some = [f"{path}: {reason}" for path, reason in damaged.items()]
  lines = [
    f"{len(damaged)} songs are damaged or cut short and used as they are; "
    f"{REPORT} lists them:"
  ]
  return lines + [f"  {file_names.shown(one)}" for one in some[:_SHOWN_FILES]]


def _shown(names: Iterable[str], what: str = "names") -> str:
  """Returns how many names there are, and the first of them."""
  names = list(names)
  more = ", ..." if len(names) > _SHOWN_FILES else ""
  first = ", ".join(map(_clip, names[:_SHOWN_FILES]))
  return f"{len(names)} {what}, e.g. {first}{more}"


def _clip(name: str) -> str:
  return name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "..."


def about_artists(names: dict[str, Any]) -> list[str]:
  """Describes whose songs the files of a library are, before the work.

  Args:
    names: what `credits.report` returns.
  """
  folders, lines = names["from_folders"], []
  if folders:
    songs = sum(one["songs"] for one in folders)
    shown = (
      f"{one['artist']} of {one['example']} ({one['songs']} songs)"
      for one in folders
    )
    what = f"artists ({songs} songs without a tag of one)"
    lines.append(
      f"taken from folders: {_shown(shown, what)}; if these are no artists, "
      "give --artist_folder"
    )
  return list(map(file_names.shown, lines + _about_names(names)))


def _about_names(names: dict[str, Any]) -> list[str]:
  """Describes what was done with names."""
  lines = []
  if count := names["by_album_artist"]:
    lines.append(f"taken from the album's artist: the artist of {count} songs")
  for kind, dropped in names["no_names"].items():
    if dropped:
      shown = (f"{name} ({count} songs)" for name, count in dropped.items())
      lines.append(f"not taken for {kind}: {_shown(shown)}")
  if names["split"]:
    shown = (f"{one} = {' + '.join(p)}" for one, p in names["split"].items())
    lines.append(f"split into artists: {_shown(shown)}")
  for kind, merged in names["merged"].items():
    if merged:
      shown = map(" = ".join, merged.values())
      lines.append(f"{kind} in several spellings: {_shown(shown)}")
  return lines


def _most_songs(names: dict[str, Any]) -> list[str]:
  """Describes the artists with the most songs."""
  most = [
    f"{_clip(one['artist'])} {one['songs']}" for one in names["most_songs"]
  ]
  return [f"artists with most songs: {', '.join(most)}"] if most else []


def _about_playlists(report: dict[str, Any]) -> list[str]:
  """Describes what was wrong with playlists."""
  lines = []
  files = report["playlist_files"]
  missing = sum(len(one["not_found"]) for one in files)
  unread = sum(len(one["left_out"]) for one in files)
  if missing or unread:
    lines.append(
      f"playlist entries that no song was found for: {missing}; that mean "
      f"songs left out: {unread}; {REPORT} lists them"
    )
  for kind, words in (
    ("streams", "playlist entries that are addresses on the net"),
    ("by_ending", "playlist entries found by the ending of their path"),
  ):
    if count := sum(len(one.get(kind, ())) for one in files):
      lines.append(f"{words}: {count}; {REPORT} lists them")
  damaged = [
    f"{one['file']} ({one['unreadable']})"
    for one in files
    if "unreadable" in one
  ]
  others = [
    f"{one['file']} ({one['reason']})" for one in report["not_playlists"]
  ]
  for what, found in (
    ("playlist files that cannot be read", damaged),
    ("files that are no playlists", others),
  ):
    if found:
      more = "; ..." if len(found) > _SHOWN_FILES else ""
      shown = "; ".join(found[:_SHOWN_FILES])
      lines.append(f"{what}: {len(found)}: {shown}{more}")
  return lines


def summary(report: dict[str, Any], data_dir: pathlib.Path) -> str:
  """Describes the content of library.json in a few lines."""
  report = _UNSAID | report
  albums = report["albums_as_playlists"]
  lines = [
    f"{data_dir}: {report['songs']} songs, {report['hours']:.2f} hours, "
    f"{report['artists']} artists ({report['songs_without_artist']} songs "
    f"without), {report['genres']} genres ({report['songs_without_genre']} "
    f"songs without), {report['playlists']} playlists"
    + (f" ({albums} of them albums)" if albums else "")
  ]
  lines += _most_songs(report["names"]) + about_artists(report["names"])
  lines += [report["passed_over"]] if report["passed_over"] else []
  lines += left_out(report, data_dir) + _damaged(report)
  lines += _about_playlists(report)
  if report["tags_unreadable"]:
    number = len(report["tags_unreadable"])
    lines.append(f"files with unreadable tags: {number}; {REPORT} lists them")
  for strategy, need in report["unavailable"].items():
    lines.append(f"not available: {strategy} (the library lacks {need})")
  if ANY in report["unavailable"]:
    return "\n".join(map(file_names.shown, lines))
  lines += _proposal(data_dir)
  return "\n".join(map(file_names.shown, lines))


def _proposal(data_dir: pathlib.Path) -> list[str]:
  """Describes a run of SS, which learned most (docs/real_music.md)."""
  accelerated = run_sizes.is_accelerated()
  library = run_sizes.library_of(data_dir, "")
  sizes = run_sizes.choose(library, accelerated)
  time = "the log says how long it takes"
  if not accelerated:
    cores = usable_cores.count()
    minutes = max(round(sizes.estimate_s(cores) / 60), 1)
    time = f"about {minutes} min on this machine's {cores} cores"
  train = programs.fit("python launch.py --config=configs/library.py:ss")
  return [
    f"proposed: {sizes.steps} steps of {sizes.batch_size} pairs, width "
    f"{sizes.width}; {time}",
    f"next: {train} --config.data.dir={data_dir} "
    f"--workdir=runs/{data_dir.name}",
  ]
