"""Vectors of songs that no training of this project gives.

Each is written as OUT/baselines/NAME.npy, float32 [songs, d], with zeros for
rendered scores, which are never looked for.
"""

from collections.abc import Callable
import importlib
import os
import pathlib
import sys
import tempfile

from jaxtyping import Float
import numpy as np
import scipy.fft
import soundfile
import tqdm

from benchmarks.real_music import kept_results
from benchmarks.real_music import musicnn
from benchmarks.real_music import real_scores
from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import dataset
from pcl_jax.evaluation import mel_baselines
from pcl_jax.library import music_files
from preprocessing.library import library_report

_COEFFICIENTS = 20
_LIFT = 30.0
_KEPT_EVERY = 20  # Songs.
_PATCHES = 10  # Of 3 s, by musicnn; all of a song would take minutes.
_REFERENCE_HZ, _LOWEST_HZ = 261.63, 60.0  # C4; and what is no pitch any more.
_Vector = Float[np.ndarray, " d"]


def mfcc(feature: Float[np.ndarray, "frames bands"]) -> _Vector:
  """Returns mean and deviation of 20 cepstral coefficients of the feature."""
  cepstrum = scipy.fft.dct(feature.astype(np.float32), axis=1, norm="ortho")
  return mel_baselines.mean_and_std(cepstrum[:, :_COEFFICIENTS])


def chroma(samples: Float[np.ndarray, " n"]) -> _Vector:
  """Returns mean and deviation of the shares of the 12 pitch classes.

  A frame has 4,096 samples at 16 kHz; the power of each of its bins from 60 Hz
  on goes to the nearest semitone's class.
  """
  size, hop = 4096, 2048
  padded = np.pad(samples, (0, max(size - len(samples), 0)))
  frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
  power = np.abs(scipy.fft.rfft(frames * np.hanning(size).astype(np.float32)))
  rate_hz = melspectrogram.SETTINGS.sample_rate_hz
  hz = scipy.fft.rfftfreq(size, 1 / rate_hz)
  used = hz >= _LOWEST_HZ
  semitones = np.round(12 * np.log2(hz[used] / _REFERENCE_HZ)).astype(int)
  classes = np.eye(12, dtype=np.float32)[semitones % 12]
  found = power[:, used] ** 2 @ classes
  found /= np.maximum(found.sum(axis=1, keepdims=True), 1e-10)
  return mel_baselines.mean_and_std(found)


def lifted(rows: Float[np.ndarray, "songs d"]) -> np.ndarray:
  """Appends a large number: cosines then rank as Euclidean distances do."""
  return np.pad(rows, ((0, 0), (0, 1)), constant_values=_LIFT)


def _standardised(rows: Float[np.ndarray, "songs d"]) -> np.ndarray:
  return (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-6)


def _bliss(folder: pathlib.Path) -> Callable[[pathlib.Path], _Vector]:
  """Returns what analyses a whole file with the package bliss-audio.

  A file that it cannot decode is decoded for it.
  """
  sys.path.append(os.fspath(folder))
  try:
    package = importlib.import_module("bliss_audio")
  except ImportError as error:
    raise errors.InputError(
      f"--bliss={folder} has no bliss_audio ({error}): pip install --target="
      f"{folder} bliss-audio."
    ) from error

  def analyse(path: pathlib.Path) -> _Vector:
    try:
      return np.array(package.Song(os.fspath(path)).analysis)
    except (KeyboardInterrupt, SystemExit):
      raise
    except BaseException as error:  # noqa: BLE001  Its panics are no Exception.
      console.warn(f"bliss-audio is given a WAV of {path}: {error}")
    with tempfile.TemporaryDirectory() as folder:
      wav = pathlib.Path(folder) / "song.wav"
      soundfile.write(wav, *soundfile.read(path))
      return np.array(package.Song(os.fspath(wav)).analysis)

  return analyse


def _of_audio(
  bliss: pathlib.Path | None, wheel: pathlib.Path | None
) -> dict[str, Callable[[pathlib.Path, np.ndarray], _Vector]]:
  """Returns name -> (file, its samples) -> vector."""
  found = {"chroma": lambda _, samples: chroma(samples)}
  if bliss is not None:
    analyse = _bliss(bliss)
    found["bliss-audio"] = lambda path, _: analyse(path)
  for network in musicnn.NETWORKS if wheel is not None else ():
    embed = musicnn.embedder(musicnn.read_weights(wheel, network))
    found[network] = lambda _, samples, embed=embed: embed(
      _spread(musicnn.patches_of(samples))
    )
  return found


def check(bliss: pathlib.Path | None, wheel: pathlib.Path | None) -> None:
  """Raises InputError where a folder or wheel is not what it should be."""
  if bliss is not None:
    _bliss(bliss)
  for network in musicnn.NETWORKS if wheel is not None else ():
    # No `embedder`: it takes the device, which runs are to have first.
    musicnn.read_weights(wheel, network)


def _spread(patches: np.ndarray) -> np.ndarray:
  """Returns ten patches, evenly spread; all where there are fewer."""
  last = len(patches) - 1
  return patches[np.unique(np.linspace(0, last, _PATCHES).round().astype(int))]


def _files(data: dataset.DataSet) -> tuple[list[pathlib.Path], float | None]:
  """Returns the audio file of each song, and where its used part ends."""
  content = storage.read_made_json(data.directory / music_files.IDS)
  report = storage.read_made_json(data.directory / library_report.REPORT)
  paths = {number: name for name, number in content["ids"].items()}
  folder = pathlib.Path(content["audio_dir"])
  ids = data.catalogue.song_ids.tolist()
  return [folder / paths[one] for one in ids], report["settings"]["to_s"]


def make(
  data_dir: pathlib.Path,
  out: pathlib.Path,
  *,
  bliss: pathlib.Path | None = None,
  wheel: pathlib.Path | None = None,
) -> None:
  """Makes the tables that are absent; goes on where it was interrupted.

  Args:
    data_dir: the data set that the folds were made of; its audio is decoded.
    out: folder of the study.
    bliss: folder that bliss-audio was installed in; None to leave it out.
    wheel: musicnn's wheel; None to leave it out.

  Raises:
    InputError: a folder or file is not what it should be.
  """
  data, out = dataset.DataSet(data_dir), out / kept_results.VECTORS
  out.mkdir(parents=True, exist_ok=True)
  songs = real_scores.recordings(data)
  kinds = _of_audio(bliss, wheel)
  of, count = kept_results.songs_of(data), len(songs)
  rows = {name: _begun(out / f"{name}.begun", of, count) for name in kinds}
  paths, to_s = _files(data)
  for i, song in enumerate(tqdm.tqdm(songs.tolist(), disable=None)):
    todo = [name for name in kinds if rows[name][i] is None]
    if todo:
      samples = np.concatenate(
        list(decode.audio_blocks(paths[song], to_s=to_s))
      )
    for name in todo:
      rows[name][i] = kinds[name](paths[song], samples)
    if todo and (i % _KEPT_EVERY == 0 or i == len(songs) - 1):
      for name, one in rows.items():
        kept = [None if vector is None else vector.tolist() for vector in one]
        content = {"songs": of, "vectors": kept}
        storage.write_json(out / f"{name}.begun", content)
  rows["MFCC"] = [mfcc(data.store.read_song(song)) for song in songs.tolist()]
  shapes = {"bliss-audio": lifted} | dict.fromkeys(
    ("MFCC", "chroma"), _standardised
  )
  for name, one in rows.items():
    found = shapes.get(name, np.asarray)(np.stack(one))
    whole = np.zeros((len(data.store), found.shape[1]), np.float32)
    whole[songs] = found
    np.save(out / f"{name}.npy", whole)
    storage.write_json(out / f"{name}.json", {"songs": of})
    print(f"{out / name}.npy: {len(songs)} songs, {found.shape[1]} numbers")


def _begun(place: pathlib.Path, of: str, count: int) -> list[_Vector | None]:
  """Returns the vectors that an interrupted run has computed.

  Args:
    place: of them; it need not exist.
    of: which songs these are, of `kept_results.songs_of`.
    count: of its recordings.
  """
  if not place.exists():
    return [None] * count
  found = storage.read_made_json(place)
  if not isinstance(found, dict) or found.get("songs") != of:
    raise errors.InputError(
      f"{place} is of other songs or of an earlier version: delete it."
    )
  vectors = found["vectors"]
  return [None if one is None else np.array(one) for one in vectors]
