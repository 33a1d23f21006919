"""Tells what a data set holds, where it came from and what can be trained.

    python -m pcl_jax.data.inspect data/melon

With pictures of some spectrograms and of the distributions (needs matplotlib):

    python -m pcl_jax.data.inspect data/melon --plot=pictures
"""

import argparse
import collections
from collections.abc import Iterator, Sequence
import datetime
import json
import os
import pathlib
import textwrap
from typing import Any

import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import pairs
from pcl_jax.data import strategies
from pcl_jax.data import vector_sources

_TOP = 20  # Genres and artists that are listed; the rest are counted.
_BAR_CHARS = 30
_REASON_CHARS = 40
_REPORTS = ("data_split", "playlist_vectors", "genre_vectors", "library")
_CODE_NAMES = "kakao_meta/genre_gn_all.json"
_STRATEGIES = (
  ((("audio", "audio_self"),), ""),
  ((("audio", "cf"),), ""),
  ((("audio", "genre_w2v"),), ""),
  ((), "Playlist"),
  ((), "Artist"),
  ((), "Genre"),
)


def _read_json(path: pathlib.Path) -> Any:
  """Returns the content of a report, or None if it is absent or damaged."""
  try:
    return storage.read_json(path)
  except (OSError, ValueError):
    return None


def _spread(values: np.ndarray, scale: float = 1.0) -> str:
  """Describes numbers by their least, quartiles and largest."""
  if not len(values):
    return "none"
  marks = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]) * scale
  return "min {:.4g}, quartiles {:.4g} {:.4g} {:.4g}, max {:.4g}".format(*marks)


def _bars(counts: Sequence[tuple[str, int]]) -> Iterator[str]:
  """Draws named counts, one a line."""
  longest = max((len(name) for name, _ in counts), default=0)
  most = max((count for _, count in counts), default=1)
  for name, count in counts:
    bar = "#" * max(round(_BAR_CHARS * count / max(most, 1)), int(count > 0))
    yield f"  {name:<{longest}} {count:>9,} {bar}".rstrip()


def _by_size(sizes: np.ndarray) -> list[tuple[str, int]]:
  """Counts numbers in classes 0, 1, 2, 3-4, 5-8, 9-16, ..."""
  found, low = [("0", int((sizes == 0).sum()))], 1
  while low <= sizes.max(initial=0):
    high = 1 if low == 1 else 2 * low - 2 if low > 2 else 2
    name = str(low) if low == high else f"{low}-{high}"
    found.append((name, int(((sizes >= low) & (sizes <= high)).sum())))
    low = high + 1
  return found


def _top(counts: np.ndarray, names: Sequence[str]) -> list[tuple[str, int]]:
  order = np.argsort(-counts, kind="stable")[:_TOP]
  return [(names[i], int(counts[i])) for i in order]


def _songs(data: dataset.DataSet) -> Iterator[str]:
  s = melspectrogram.SETTINGS
  frame_s = s.hop_samples / s.sample_rate_hz
  frames = data.store.frames
  hours = float(frames.sum(dtype=np.int64)) * frame_s / 3600
  yield f"{len(frames):,} songs, {hours:,.1f} hours"
  yield f"  seconds: {_spread(frames, frame_s)}"
  short = int((frames < song_patches.FRAMES).sum())
  yield (
    f"  shorter than a patch ({song_patches.FRAMES} frames, padded with "
    f"silence): {short:,}"
  )
  left_out = _read_json(data.directory / "skipped.json")
  if isinstance(left_out, list):
    reasons = collections.Counter(
      textwrap.shorten(str(one.get("reason")), _REASON_CHARS, placeholder="...")
      for one in left_out
    )
    yield f"left out (skipped.json): {len(left_out):,}"
    yield from _bars(reasons.most_common(_TOP))


def _split(made: catalogues.Catalogue) -> Iterator[str]:
  yield "split"
  parts = [*enumerate(catalogues.SPLIT_NAMES), (catalogues.NO_SPLIT, "unused")]
  yield from _bars(
    [(name, int((made.split == number).sum())) for number, name in parts]
  )
  drawn = {name: len(one) for name, one in made.validation_pairs.items()}
  yield "  validation pairs: " + ", ".join(
    f"{name} {count:,}" for name, count in drawn.items()
  )


def _genres(data: dataset.DataSet) -> Iterator[str]:
  made = data.catalogue
  names = _read_json(data.directory / _CODE_NAMES) or {}
  codes = [str(code) for code in made.genre_codes]
  words = [f"{code} {names.get(code, '')}".rstrip() for code in codes]
  counts = np.bincount(made.genres.values, minlength=len(codes) + 1)[1:]
  yield f"{len(codes)} genre codes; songs with each (the {_TOP} most frequent)"
  yield from _bars(_top(counts, words))
  yield "  codes of a song"
  yield from _bars(_by_size(made.genres.lengths))


def _artists(made: catalogues.Catalogue) -> Iterator[str]:
  counts = np.bincount(made.artists.values)
  yield f"{len(counts):,} artists; artists by their number of songs"
  yield from _bars(_by_size(counts)[1:])
  none = int((made.artists.lengths == 0).sum())
  albums = len(np.unique(made.albums[made.albums >= 0]))
  yield f"  songs without artist: {none:,}; albums: {albums:,}"


def _playlists(made: catalogues.Catalogue) -> Iterator[str]:
  files = np.bincount(made.playlist_files, minlength=3).tolist()
  entries = len(made.playlists.values)
  yield (
    f"{len(made.playlists):,} playlists ({files[0]:,} train.json, {files[1]:,} "
    f"val.json, {files[2]:,} test.json), {entries:,} entries; by length"
  )
  yield from _bars(_by_size(made.playlists.lengths))
  used = np.bincount(made.playlists.values, minlength=len(made))
  yield "  songs by the number of playlists they are in"
  yield from _bars(_by_size(used))


def _pairs_of_an_epoch(made: catalogues.Catalogue, method: str) -> int:
  drawn = pairs.draw_pairs(
    made.pair_lists(method),
    made.split == catalogues.TRAIN,
    once=pairs.ONCE_AN_EPOCH[method],
    rng=np.random.default_rng(0),
  )
  return len(drawn)


def _coverage(data: dataset.DataSet) -> Iterator[str]:
  """Says of each mode and pair method whether it can be trained."""
  made = data.catalogue
  _, rows = vector_sources.learned_entries(made)
  in_playlist = np.isin(np.arange(len(made)), rows)
  shares = {
    "cf": in_playlist[made.learned].mean() if made.learned.any() else 0.0,
    "genre_w2v": (made.genres.lengths > 0).mean(),
  }
  yield "what can be trained"
  for combos, method in _STRATEGIES:
    strategy = strategies.parse(combos, method)
    if method and not len(made.validation_pairs.get(method, ())):
      yield (
        f"  {strategy.name}: no. no two validation songs share what makes a "
        "pair: split again with a larger --validation_share"
      )
      continue
    try:
      data.tables(strategy, max_num_tags=10)
    except errors.InputError as error:
      yield f"  {strategy.name}: no. {error}"
      continue
    details = [
      f"{shares[mode]:.1%} of the songs have what mode {mode} is made of"
      for mode in strategy.modes
    ]
    if method:
      count = _pairs_of_an_epoch(made, method)
      details.append(f"about {count:,} pairs an epoch")
    yield f"  {strategy.name}: yes" + "".join(f"; {one}" for one in details)


def _as_lines(value: Any) -> Iterator[str]:
  for line in json.dumps(value, indent=2, ensure_ascii=False).splitlines():
    if line.strip("{}, "):
      yield line.rstrip(",{ ")


def _provenance(data: dataset.DataSet) -> Iterator[str]:
  yield f"fingerprint (songs, split, feature): {data.fingerprint()}"
  path = data.store.path / "data.mdb"
  written = datetime.datetime.fromtimestamp(path.stat().st_mtime)
  yield (
    f"{path.name}: {os.path.getsize(path) / 1e9:.3f} GB, written "
    f"{written:%Y-%m-%d %H:%M}"
  )
  yield from _as_lines(data.store.meta)
  for name in _REPORTS:
    report = _read_json(data.directory / f"{name}.json")
    if isinstance(report, dict) and "settings" in report:
      yield f"{name}.json"
      yield from _as_lines(report["settings"])


def describe(data: dataset.DataSet) -> str:
  """Returns what a data set holds, in words and bars, many lines.

  Args:
    data: an opened data set.
  """
  made = data.catalogue
  parts = [
    _songs(data),
    _split(made),
    _genres(data),
    _artists(made),
    _playlists(made),
    _coverage(data),
    _provenance(data),
  ]
  return "\n\n".join("\n".join(part) for part in parts)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and prints."""
  parser = argparse.ArgumentParser(
    prog="python -m pcl_jax.data.inspect",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("data", help="the data set's folder")
  parser.add_argument("--plot", help="folder to write pictures into")
  args = parser.parse_args(argv)
  data = dataset.DataSet(pathlib.Path(args.data).expanduser())
  print(describe(data))
  if args.plot:
    from pcl_jax.data import pictures  # Imports matplotlib, asked for only now.

    for path in pictures.draw(data, pathlib.Path(args.plot).expanduser()):
      print(f"wrote {path}")


if __name__ == "__main__":
  errors.run_command(main)
