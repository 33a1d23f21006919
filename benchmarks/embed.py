"""Songs per second of embedding, against the encoder alone and PyTorch's.

python -m benchmarks.embed
python -m benchmarks.embed --encoder=sc_cnn --songs=16 --rounds=3

Needs PyTorch, and onnx and onnxruntime (`pip install torch "pcl_jax[onnx]"`).
Makes MP3 files of 30 s in
stereo at 44.1 kHz and a song store of the same songs in a temporary folder,
then embeds all of them in turn, within one run:

  encoder     batches that lie in memory, through the encoder alone
  store       the song store, as `pcl_jax.embed --data` does
  files       the files, as `pcl_jax.embed --audio` does: decoded, too
  reading     the files, decoded to patches and nothing more
  torch       the batches in memory through the same network in plain PyTorch,
              evaluation mode, float32
  torch last  the same with channels last
  onnx        the batches in memory through onnxruntime, as --runtime=onnx does
  onnx files  the files, as `pcl_jax.embed --audio --runtime=onnx` does

Prints the median, least and most of the seconds, and of the ratios round by
round, and the processor time of a song, which other work on the machine changes
less. Weights are PyTorch's initial ones; both networks are checked to agree.
"""

import argparse
from collections.abc import Callable, Sequence
import functools
import importlib
import os
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np
import pyarrow as pa
import soundfile

from benchmarks import train_step as timing
from pcl_jax.audio import decode
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import embedding_run
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.interop import onnx_runtime
from pcl_jax.interop import torch_names
from pcl_jax.models import audio_encoder
from pcl_jax.models import compiled_encoder

_RATE_HZ = 44_100
_SECONDS = 30


def make_songs(folder: pathlib.Path, songs: int) -> None:
  """Writes audio files, and the song store that is made of them.

  Args:
    folder: gets `music` and `songs.lmdb`.
    songs: how many.
  """
  (folder / "music").mkdir()
  rng = np.random.default_rng(0)
  time_s = np.arange(_RATE_HZ * _SECONDS) / _RATE_HZ
  writer = song_writer.SongWriter(folder / song_store.FILE_NAME)
  for number in range(songs):
    tones = np.sin(2 * np.pi * time_s[:, None] * rng.uniform(80, 4000, 2))
    noise = rng.standard_normal((len(time_s), 2))
    path = folder / "music" / f"{number:05d}.mp3"
    soundfile.write(path, 0.3 * tones + 0.05 * noise, _RATE_HZ, format="MP3")
    writer.add([(number, decode.read_feature(path))])
  writer.finish({"kind": "songs of a benchmark"})


def _batches(
  source: audio_sources.Source, size: int
) -> list[song_patches.Batch]:
  pieces = (
    (song, piece.patches)
    for song in range(len(source.ids))
    for piece in source.pieces(song)
  )
  return list(song_patches.gathered(pieces, size))


def _torch_runs(
  networks, weights: dict, images: list, encoder_name: str, width: int | None
) -> dict[str, Callable[[], list[np.ndarray]]]:
  """Returns runs over all images that give the features of each."""
  torch = networks.torch
  runs = {}
  for name in ("torch", "torch last"):
    encoder = networks.AudioEncoder(encoder_name, width).eval()
    encoder.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
    (backbone,) = encoder.audio_encoder.values()
    mine = images
    if name == "torch last":
      kind = torch.channels_last
      backbone = backbone.to(memory_format=kind)
      mine = [one.contiguous(memory_format=kind) for one in images]

    def run(backbone=backbone, mine=mine):
      with torch.inference_mode():
        return [backbone(one).numpy() for one in mine]

    runs[name] = run
  return runs


def _embed_source(
  source: audio_sources.Source,
  embedder: Callable,
  like: pa.Schema,
  out: pathlib.Path,
  batch: int,
) -> None:
  embedding_run.embed_source(
    source, embedder, like, out, batch_patches=batch, threads=os.cpu_count()
  )


def make_runs(
  folder: pathlib.Path, encoder_name: str, width: int | None, batch: int
) -> tuple[dict[str, Callable], int]:
  """Returns what is timed, and over how many patches each goes.

  Args:
    folder: of `make_songs`.
    encoder_name: resnet or sc_cnn.
    width: of the network; None for the paper's.
    batch: patches encoded at once.
  """
  networks = importlib.import_module("benchmarks.parts.torch_networks")
  networks.torch.manual_seed(0)
  weights = networks.arrays_of(networks.AudioEncoder(encoder_name, width))
  network = torch_names.load_encoder(weights)
  embedder = compiled_encoder.make_embedder(network)
  by_onnx = onnx_runtime.make_embedder(network)
  files = audio_sources.audio_files([folder / "music"])
  store = audio_sources.data_set_songs(folder)
  batches = _batches(store, batch)
  images = [
    networks.image_of(one.patches.astype(np.float32)) for one in batches
  ]
  theirs = _torch_runs(networks, weights, images, encoder_name, width)
  expected = theirs["torch"]()[0]
  features = np.asarray(embedder(batches[0].patches))
  for found in (features, by_onnx(batches[0].patches)):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
  like = embedding_table.schema(features.shape[1], {"of": "a benchmark"})
  runs: dict[str, Callable] = {}
  for name, run in (("encoder", embedder), ("onnx", by_onnx)):
    runs[name] = lambda run=run: list(song_patches.encoded(run, batches))
  for name, source, run in (
    ("store", store, embedder),
    ("files", files, embedder),
    ("onnx files", files, by_onnx),
  ):
    out = folder / f"{name}.parquet"
    runs[name] = functools.partial(_embed_source, source, run, like, out, batch)
  runs["reading"] = lambda: _batches(files, batch)
  return runs | theirs, sum(len(one.song_index) for one in batches)


def _line(name: str, values: Sequence[float], unit: str) -> str:
  return (
    f"{name:<24}{statistics.median(values):>9.3f} {unit} "
    f"[{min(values):.3f}, {max(values):.3f}]"
  )


def _timed(
  runs: dict[str, Callable], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
  """Takes the runs in turn; returns seconds, and those of processors."""
  spent: dict[str, list[float]] = {name: [] for name in runs}

  def watched(name: str, run: Callable) -> None:
    begin = time.process_time()
    run()
    spent[name].append(time.process_time() - begin)

  seconds = timing.measure(
    {name: functools.partial(watched, name, run) for name, run in runs.items()},
    rounds,
  )
  return seconds, {name: values[1:] for name, values in spent.items()}


def _report(
  seconds: dict[str, list[float]],
  processors: dict[str, list[float]],
  songs: int,
  patches: int,
) -> None:
  for name, values in processors.items():
    of_song = [value / songs for value in values]
    print(_line(f"processors, {name}", of_song, "s a song"))
  for name, values in seconds.items():
    median = statistics.median(values)
    print(
      f"{_line(name, values, 's')}; {songs / median:,.2f} songs/s, "
      f"{patches / median:,.1f} patches/s"
    )
  for name in ("store", "files", "torch", "torch last", "onnx", "onnx files"):
    pairs = zip(seconds["encoder"], seconds[name], strict=True)
    ratios = [bare / other for bare, other in pairs]
    print(_line(f"rate {name} / encoder", ratios, "times"))
  for name in ("torch", "torch last"):
    pairs = zip(seconds[name], seconds["files"], strict=True)
    ratios = [theirs / ours for theirs, ours in pairs]
    print(_line(f"rate files / {name}", ratios, "times"))
  pairs = zip(seconds["files"], seconds["onnx files"], strict=True)
  ratios = [ours / theirs for ours, theirs in pairs]
  print(_line("rate onnx files / files", ratios, "times"))


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--encoder", choices=sorted(audio_encoder.BACKBONES), default="resnet")
  add("--width", type=int, help="default: the paper's")
  add("--songs", type=int, default=48, help="of 30 s (%(default)s)")
  add("--batch", type=int, default=song_encoder.BATCH_PATCHES, help="patches")
  add("--rounds", type=int, default=5)
  flags = parser.parse_args(argv)
  torch = importlib.import_module("benchmarks.parts.torch_networks").torch
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  print(
    f"{flags.encoder}, {flags.songs} songs of {_SECONDS} s, batch "
    f"{flags.batch}, {flags.rounds} rounds, {len(os.sched_getaffinity(0))} "
    f"cores; {jax.devices()[0].device_kind}; jax {jax.__version__}, torch "
    f"{torch.__version__}: median [least, most]"
  )
  with tempfile.TemporaryDirectory(prefix="pcl_jax-") as folder:
    make_songs(pathlib.Path(folder), flags.songs)
    runs, patches = make_runs(
      pathlib.Path(folder), flags.encoder, flags.width, flags.batch
    )
    seconds, processors = _timed(runs, flags.rounds)
  _report(seconds, processors, flags.songs, patches)


if __name__ == "__main__":
  errors.run_command(main)
