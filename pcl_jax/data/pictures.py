"""Pictures of a data set: some spectrograms, and its distributions."""

import pathlib

import matplotlib.backends.backend_agg
import matplotlib.figure
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.common import storage
from pcl_jax.data import dataset

_SPECTROGRAMS = 8
_FRAMES = 1250  # 20 s.
_BINS = 40


def _save(figure: matplotlib.figure.Figure, path: pathlib.Path) -> pathlib.Path:
  # Without pyplot: no window system is asked for, no figure is kept.
  matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  with storage.write_aside(path) as partial:
    figure.savefig(partial, format="png", dpi=110)
  return path


def _spectrograms(data: dataset.DataSet) -> matplotlib.figure.Figure:
  s = melspectrogram.SETTINGS
  frame_s = s.hop_samples / s.sample_rate_hz
  songs = np.linspace(0, len(data.store) - 1, _SPECTROGRAMS).astype(int)
  songs = np.unique(songs)
  size = (10, 1.6 * len(songs))
  figure = matplotlib.figure.Figure(size, layout="constrained")
  for axes, song in zip(
    figure.subplots(len(songs), squeeze=False)[:, 0], songs, strict=True
  ):
    feature = data.store.read_song(int(song))[:_FRAMES].astype(np.float32)
    image = axes.imshow(
      feature.T,
      aspect="auto",
      origin="lower",
      extent=(0, len(feature) * frame_s, 0, s.mel_bands),
    )
    axes.set_ylabel("mel band")
    axes.set_title(f"song {data.store.song_ids[song]}", fontsize=9, loc="left")
    figure.colorbar(image, ax=axes, label="log10(0.01 + power)")
  axes.set_xlabel("seconds")
  return figure


def _bins(values: np.ndarray) -> np.ndarray | int:
  """Returns one bin a number, where they are few whole numbers."""
  if values.dtype.kind == "f" or not len(values) or np.ptp(values) > _BINS:
    return _BINS
  return np.arange(values.min(), values.max() + 2) - 0.5


def _distributions(data: dataset.DataSet) -> matplotlib.figure.Figure:
  s = melspectrogram.SETTINGS
  made = data.catalogue
  frame_s = s.hop_samples / s.sample_rate_hz
  popularity = np.bincount(made.playlists.values, minlength=len(made))
  drawn = (
    ("length of a song, seconds", data.store.frames * frame_s, "songs"),
    ("songs of a playlist", made.playlists.lengths, "playlists"),
    ("playlists a song is in", popularity, "songs"),
    ("songs of an artist", np.bincount(made.artists.values), "artists"),
    ("songs of a genre code", np.bincount(made.genres.values)[1:], "codes"),
    ("genre codes of a song", made.genres.lengths, "songs"),
  )
  figure = matplotlib.figure.Figure((11, 6.5), layout="constrained")
  for axes, (name, values, what) in zip(
    figure.subplots(2, 3).flat, drawn, strict=True
  ):
    axes.hist(values, bins=_bins(values), color="tab:blue")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)  # So that a single one is seen.
    axes.set_xlabel(name)
    axes.set_ylabel(what)
  return figure


def draw(data: dataset.DataSet, folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes spectrograms.png and distributions.png.

  Args:
    data: an opened data set.
    folder: where they are written; made if need be.

  Returns:
    Their paths.
  """
  folder.mkdir(parents=True, exist_ok=True)
  return [
    _save(_spectrograms(data), folder / "spectrograms.png"),
    _save(_distributions(data), folder / "distributions.png"),
  ]
