"""Embeds songs: each becomes the mean over the vectors of its patches.

  python -m pcl_jax.embed --workdir=runs/h --audio=~/music --out=music.parquet
  python -m pcl_jax.embed --workdir=runs/h --data=data/melon --out=melon.parquet

Without --workdir the encoder is the bundle in the folder pcl_jax/pretrained of
the installation, where there is one.

A song is cut into whole patches of 4.096 s, end to end, from its beginning. The
rest at its end is not used, and a song shorter than one patch is padded with
silence. Its vector is the mean over all patches. Any length will do, from one
sample to hours: audio is decoded in a stream. Of a folder, all files that hold
sound are songs, whatever their suffix; the others are counted.

--layer says which vector:
  features    what the backbone gives (1024 numbers in the paper's networks).
              Take these to train probes and classifiers on, and to find what
              sounds alike: evaluation uses them.
  projection  what the loss saw in training (128 numbers): closer to what the
              strategy made alike, with less of everything else.

The table has the columns id, path, vector (float32, a list of fixed size),
patches (how many the mean is over), padded, silent, stamp and content (by which
a file is known again), name (artist and title), artists, album, album_id and
genres (from the file's tags or the data set) and seconds; with --per_patch
a row for each patch, with start_s in place of patches, and without what follows
name.
Its metadata names the encoder: the run, the step, a hash of the weights, the
feature's settings, versions.

With --runtime=onnx the network is computed by onnxruntime on the CPU, which is
the faster one on some processors (docs/embeddings.md); the table says so, and
is only brought up to date by the runtime that made it.

--shard=2/8 embeds the second of eight parts of the songs into a table of its
own beside OUT, on a host or in a job of its own; the one that finds all eight
there makes OUT of them, the same as that of one process, and removes them. Each
goes on by itself where it was interrupted.

Interrupted at any moment, the same command goes on, also where songs were added
or changed meanwhile; finished parts lie in OUT.parts until the end. Given once
more after that, it embeds what is new or changed, drops what is no longer
there, and says so; with another encoder or other settings it stops, unless with
--force. An index beside the table (python -m pcl_jax.index) is made again with
it. Songs that cannot be read are listed on the screen and in OUT.failures.json
with the reason; the exit code is then 1, and the table has all others. Each
further call tries them again.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

from absl import logging

from pcl_jax.audio import channel_mix
from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import embedding_run
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.tables import row_index
from pcl_jax.interop import onnx_runtime
from pcl_jax.models import compiled_encoder

_SHOWN_FAILURES = 20


def _format(report: embedding_run.Report, out: pathlib.Path) -> str:
  missing = report.missing_shards
  where = f", written to {'its own table' if missing else out}"
  if not report.written:
    where = f"; {out} stays as it was"
  lines = [f"{report.songs} songs, {report.patches} patches{where}"]
  if missing:
    lines.append(
      f"{out} is made by the last shard; still missing: "
      f"{', '.join(map(str, missing))}"
    )
  if report.kept and report.written:
    new = report.songs - report.kept
    lines.append(
      f"of these, {new} are new or changed, {report.kept} are as they were in "
      f"the table; {report.gone} songs of the table are no longer there"
    )
  if report.padded:
    lines.append(
      "songs shorter than a patch, padded with silence: "
      f"{report.padded} (column padded)"
    )
  if report.silent:
    lines.append(
      "songs that are silent from beginning to end, or whose channels cancel "
      f"each other out: {report.silent} (column silent; similar does not find "
      "them; --channels=left or loudest takes one channel)"
    )
  if report.damaged:
    lines.append(
      f"songs damaged or cut short, used as they are: {report.damaged} (named "
      "in the warnings)"
    )
  failures = report.failures
  if failures:
    lines.append(f"{len(failures)} songs cannot be read:")
    shown = failures[:_SHOWN_FAILURES]
    for one in shown:
      why = f"{one['path'] or one['id']}: {one['reason']}"
      lines.append(f"  {file_names.shown(why)}")
    listed = embedding_run.failures_path(out)
    more = len(failures) - _SHOWN_FAILURES
    lines.append(f"  {f'and {more} more; ' * (more > 0)}all are in {listed}")
  return "\n".join(lines)


def _arguments(argv: Sequence[str] | None) -> dict[str, Any]:
  parser = command_line.parser("pcl_jax.embed", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  count, layers = {"type": command_line.count}, compiled_encoder.LAYERS
  text = "folder of the run, or a bundle (pcl_jax/pretrained, if there is one)"
  add("--workdir", help=text)
  what = parser.add_mutually_exclusive_group(required=True)
  text = "audio files, and folders of them"
  what.add_argument("--audio", **path, nargs="+", help=text)
  what.add_argument("--data", **path, help="a prepared data set's folder")
  add("--out", **path, required=True, help="the table, a Parquet file")
  text = "of several: mean, left or loudest (what the encoder has learned from)"
  add("--channels", choices=channel_mix.CHOICES, help=text)
  add("--layer", choices=layers, default=layers[0], help="see above")
  add("--per_patch", action="store_true", help="a row for each patch")
  which = song_encoder.CHECKPOINTS
  text = "by validation loss, or by step; a bundle has one encoder"
  add("--checkpoint", choices=which, default=which[0], help=text)
  text = "patches encoded at once (%(default)s); GPUs are faster with more"
  default = song_encoder.BATCH_PATCHES
  add("--batch_patches", **count, default=default, help=text)
  text = "what computes the network: jax, or onnxruntime on the CPU"
  add("--runtime", choices=("jax", "onnx"), default="jax", help=text)
  add("--threads", **count, help="files decoded at once (cores, at most 8)")
  text = "of N hosts, embed the I-th part of the songs; see above"
  add("--shard", metavar="I/N", help=text)
  add("--force", action="store_true", help="replace a finished table")
  return vars(parser.parse_args(argv))


def main(argv: Sequence[str] | None = None) -> int | None:
  """Parses the command line and writes the table."""
  flags = _arguments(argv)
  jax_setup.start()
  audio, data = flags.pop("audio"), flags.pop("data")
  out, runtime = flags.pop("out"), flags.pop("runtime")
  if runtime == "onnx":
    onnx_runtime.check_installed()
  encoder = encoder_loading.load(
    flags.pop("workdir"),
    flags.pop("checkpoint"),
    batch_patches=flags["batch_patches"],
  )
  if runtime == "onnx":
    encoder = onnx_runtime.run_by_onnx(encoder)
  songs = audio if data is None else audio_sources.data_set_songs(data)
  report = encoder.embed_files(songs, out, **flags)
  if report is None:
    print(
      f"nothing to do: {out} is made of these songs and this encoder; --force "
      "makes it again"
    )
  else:
    print(_format(report, out))
  if not flags["per_patch"] and not (report and report.missing_shards):
    for line in row_index.follow(out):
      print(line)
  return errors.EXIT_FAILED if report and report.failures else None


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(main)
