"""Describes a data set: what it holds, its origin and what it can train.

    python -m pcl_jax.data.inspect data/melon
    python -m pcl_jax.data.inspect data/melon --plot=pictures

The second also draws some spectrograms and the distributions with matplotlib.
"""

import collections
from collections.abc import Iterator, Sequence
import datetime
import json
import pathlib
import re
import textwrap
from typing import Any
import warnings

import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import programs
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import pairs
from pcl_jax.data import strategies
from pcl_jax.data import vector_sources
from pcl_jax.library import music_files
from pcl_jax.library import song_names

_TOP = 20  # Most genres and reasons that are listed.
_BAR_CHARS = 30
_REASON_CHARS = 60
_TITLE_CHARS = 90
_SHARED = {
  "Playlist": "a playlist",
  "Artist": "an artist",
  "Genre": "a genre",
  "Album": "an album",
}
_REPORTS = ("data_split", "playlist_vectors", "genre_vectors", "library")
_FRAME_S = (
  melspectrogram.SETTINGS.hop_samples / melspectrogram.SETTINGS.sample_rate_hz
)
_SPECTROGRAMS = 8
_SHOWN_FRAMES = 1250  # 20 s.
_STRATEGIES = [
  *(([combo], "") for combo in strategies.COMBOS if "audio" in combo),
  *(([], method) for method in catalogues.PAIR_METHODS),
]


def _read_json(path: pathlib.Path) -> Any:
  """Returns the content of a report; None where it is absent or damaged."""
  try:
    return storage.read_json(path)
  except (OSError, ValueError):
    return None


def _bars(counts: Sequence[tuple[str, int]]) -> Iterator[str]:
  """Draws named counts, one a line."""
  longest = max((len(name) for name, _ in counts), default=0)
  most = max([1, *(count for _, count in counts)])
  for name, count in counts:
    bar = "#" * max(round(_BAR_CHARS * count / most), int(count > 0))
    yield f"  {name:<{longest}} {count:>9,} {bar}".rstrip()


def _by_size(sizes: np.ndarray) -> list[tuple[str, int]]:
  """Counts numbers in classes 0, 1, 2, 3-4, 5-8, 9-16, ..."""
  # The exponent of size - 1 is 0 for 1, 1 for 2, 2 for 3-4, 3 for 5-8.
  counts = np.bincount(np.frexp(sizes[sizes > 0] - 1)[1]).tolist()
  longer = [f"{2**i // 2 + 1}-{2**i}" for i in range(2, len(counts))]
  zeros = int((sizes == 0).sum())
  return [("0", zeros), *zip(["1", "2", *longer], counts, strict=False)]


def _kind(left_out: dict[str, Any]) -> str:
  """Returns why a song is left out, without what is of this song alone."""
  reason = str(left_out.get("reason"))
  if "duplicate_of" in left_out:
    reason = "it has the same audio as another song"
  reason = re.sub(r" ?\(.*", "", reason.split(": ")[0])
  reason = re.sub(r"\d+([.,]\d+)*", "N", reason)
  return textwrap.shorten(reason, _REASON_CHARS, placeholder="...")


def _songs(data: dataset.DataSet) -> Iterator[str]:
  frames = data.store.frames
  hours = float(frames.sum(dtype=np.int64)) * _FRAME_S / 3600
  yield f"{len(frames):,} songs, {hours:,.1f} hours"
  if len(frames):
    five = np.quantile(frames, [0, 0.25, 0.5, 0.75, 1]) * _FRAME_S
    spread = "min {:.4g}, quartiles {:.4g} {:.4g} {:.4g}, max {:.4g}"
    yield f"  seconds: {spread.format(*five)}"
  short = int((frames < song_patches.FRAMES).sum())
  yield (
    f"  shorter than a patch ({song_patches.FRAMES} frames, padded with "
    f"silence): {short:,}"
  )
  left_out = _read_json(data.directory / "skipped.json")
  if isinstance(left_out, list):
    reasons = collections.Counter(map(_kind, left_out))
    yield f"left out (skipped.json): {len(left_out):,}"
    yield from _bars(reasons.most_common(_TOP))


def _parts(made: catalogues.Catalogue) -> Iterator[str]:
  yield "split"
  parts = [*enumerate(catalogues.SPLIT_NAMES), (catalogues.NO_SPLIT, "unused")]
  counts = [(name, int((made.split == one).sum())) for one, name in parts]
  yield from _bars(counts)
  yield "  validation pairs: " + ", ".join(
    f"{name} {len(one):,}" for name, one in made.validation_pairs.items()
  )


def _genres(data: dataset.DataSet) -> Iterator[str]:
  made = data.catalogue
  names = song_names.genre_names(data.directory)
  words = [
    f"{one} {names.get(str(one), '')}".rstrip() for one in made.genre_codes
  ]
  counts = np.bincount(made.genres.values, minlength=len(words) + 1)[1:]
  yield f"{len(words)} genre codes; songs with each (the {_TOP} most frequent)"
  most = np.argsort(-counts, kind="stable")[:_TOP]
  yield from _bars([(words[i], int(counts[i])) for i in most])
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


def _obstacle(data: dataset.DataSet, strategy: strategies.Strategy) -> str:
  """Returns why a strategy cannot be trained, with the remedy; or nothing."""
  try:
    data.tables(strategy, max_num_tags=10)
  except errors.InputError as error:
    return str(error)
  made, method = data.catalogue, strategy.pair_method
  parts = {"training": catalogues.TRAIN, "validation": catalogues.VALIDATION}
  if not method:
    for name, part in parts.items():
      songs = int((made.split == part).sum())
      if songs < 2:
        return f"{songs} {name} songs, and a batch needs two: {_split(data)}"
    return ""
  shared, lists = _SHARED[method], made.pair_lists(method)
  if lists.lengths.max(initial=0) < 2:
    remedy = dataset.NEEDS[method][1]
    return f"no two songs share {shared}: {remedy} and prepare it again"
  given = {
    "training": len(_pairs(made, method)),
    "validation": len(made.validation_pairs.get(method, ())),
  }
  for name, number in given.items():
    if number < 2:
      count = "only two" if number else "no two"
      return f"{count} {name} songs share {shared}: {_split(data, name)}"
  try:
    data.check_pairs(strategy)
  except errors.InputError as error:
    return str(error)
  return ""


def _split(data: dataset.DataSet, few: str = "validation") -> str:
  """Returns how to divide songs so that there are more of a part."""
  share = "a larger" if few == "validation" else "smaller --test_share and"
  command = f"preprocessing.data_split --data={data.directory}"
  if (data.directory / music_files.IDS).exists():
    command = f"preprocessing.own_library --audio=... --out={data.directory}"
  return (
    f"split again with {share} --validation_share (python -m {command} "
    "--force), or add songs"
  )


def _pairs(made: catalogues.Catalogue, method: str) -> np.ndarray:
  """Draws the pairs of an epoch."""
  return pairs.draw_pairs(
    made.pair_lists(method),
    made.split == catalogues.TRAIN,
    once=pairs.ONCE_AN_EPOCH[method],
    rng=np.random.default_rng(0),
  )


def _coverage(data: dataset.DataSet) -> Iterator[str]:
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
    obstacle = _obstacle(data, strategy)
    if obstacle:
      yield f"  {strategy.name}: no. {obstacle}"
      continue
    details = "".join(
      f"; {shares[mode]:.1%} of the songs have what mode {mode} is made of"
      for mode in strategy.modes
    )
    if method:
      details += f"; about {len(_pairs(made, method)):,} pairs an epoch"
    yield f"  {strategy.name}: yes{details}"


def _as_lines(value: Any) -> Iterator[str]:
  for line in json.dumps(value, indent=2, ensure_ascii=False).splitlines():
    if line.strip("{}, "):
      yield line.rstrip(",{ ")


def _provenance(data: dataset.DataSet) -> Iterator[str]:
  yield f"fingerprint (songs, split, feature): {data.fingerprint()}"
  path = data.store.path / "data.mdb"
  found = path.stat()
  written = datetime.datetime.fromtimestamp(found.st_mtime)
  size = found.st_size / 1e9
  yield f"{path.name}: {size:.3f} GB, written {written:%Y-%m-%d %H:%M}"
  yield from _as_lines(data.store.meta)
  for name in _REPORTS:
    report = _read_json(data.directory / f"{name}.json")
    if isinstance(report, dict) and "settings" in report:
      yield f"{name}.json"
      yield from _as_lines(report["settings"])


def describe(data: dataset.DataSet) -> str:
  """Returns a description of an opened data set: text and bars, many lines."""
  made = data.catalogue
  parts = [_songs(data), _parts(made), _genres(data), _artists(made)]
  parts += [_playlists(made), _coverage(data), _provenance(data)]
  return "\n\n".join("\n".join(part) for part in parts)


def _labels(data: dataset.DataSet, songs: Sequence[int]) -> list[str]:
  """Returns what people know songs by: artist and title, or the file."""
  numbers = data.store.song_ids[songs].tolist()
  paths, _ = song_names.audio_paths(data.directory)
  titles = song_names.titles(data.directory, numbers) or [""] * len(numbers)
  labels = []
  for number, title in zip(numbers, titles, strict=True):
    file = paths.get(number, "")
    known = [one for one in (title, pathlib.Path(file).name) if one]
    label = ": ".join([f"song {number}", ", ".join(known)]) if known else ""
    label = file_names.shown(label or f"song {number}")
    labels.append(textwrap.shorten(label, _TITLE_CHARS, placeholder="..."))
  return labels


def _draw_spectrograms(figure: Any, data: dataset.DataSet) -> None:
  spread = np.linspace(0, len(data.store) - 1, _SPECTROGRAMS)
  songs = np.unique(spread.astype(int)).tolist()
  subplots = figure.subplots(len(songs), squeeze=False).flat
  labels = _labels(data, songs)
  for axes, song, label in zip(subplots, songs, labels, strict=True):
    feature = data.store.read_song(song)[:_SHOWN_FRAMES].astype(np.float32)
    end_s, bands = len(feature) * _FRAME_S, feature.shape[1]
    how = {"aspect": "auto", "origin": "lower", "extent": (0, end_s, 0, bands)}
    image = axes.imshow(feature.T, **how)
    figure.colorbar(image, ax=axes, label="log10(0.01 + power)")
    axes.set_ylabel("mel band")
    axes.set_title(label, parse_math=False)  # A name may have dollars.
  axes.set_xlabel("seconds")


def _draw_distributions(figure: Any, data: dataset.DataSet) -> None:
  made = data.catalogue
  popularity = np.bincount(made.playlists.values, minlength=len(made))
  drawn = (
    ("length of a song, seconds", data.store.frames * _FRAME_S, "songs"),
    ("songs of a playlist", made.playlists.lengths, "playlists"),
    ("playlists a song is in", popularity, "songs"),
    ("songs of an artist", np.bincount(made.artists.values), "artists"),
    ("songs of a genre code", np.bincount(made.genres.values)[1:], "codes"),
    ("genre codes of a song", made.genres.lengths, "songs"),
  )
  subplots = figure.subplots(2, 3).flat
  for axes, (name, values, counted) in zip(subplots, drawn, strict=True):
    axes.hist(values, bins=40, log=True)
    axes.set(
      xlabel=name, ylabel=counted, ylim=(0.5, None)
    )  # Shows a single one.


def draw(data: dataset.DataSet, folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes spectrograms.png and distributions.png; returns their paths."""
  # Imported here, since it takes a second. Without pyplot no window system is
  # needed and no figure is kept.
  from matplotlib import figure

  folder.mkdir(parents=True, exist_ok=True)
  paths = []
  for name, height_inches, draw_into in (
    ("spectrograms.png", 1.6 * _SPECTROGRAMS, _draw_spectrograms),
    ("distributions.png", 6.5, _draw_distributions),
  ):
    made = figure.Figure((11.0, height_inches), layout="constrained")
    draw_into(made, data)
    with (
      storage.write_aside(folder / name) as partial,
      warnings.catch_warnings(),
    ):
      # A box stands for what the font lacks.
      warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
      made.savefig(partial, format="png", dpi=110)
    paths.append(folder / name)
  return paths


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and prints."""
  parser = command_line.parser("pcl_jax.data.inspect", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  add("data", **path, help="the data set's folder")
  add("--plot", **path, help="folder to write pictures into")
  flags = parser.parse_args(argv)
  data = dataset.DataSet(flags.data)
  print(programs.fit(describe(data)))
  if flags.plot:
    for path in draw(data, flags.plot):
      print(f"wrote {path}")


if __name__ == "__main__":
  errors.run_command(main)
