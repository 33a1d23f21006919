"""Hours and memory of the whole road at Melon's size, stage by stage.

python -m benchmarks.melon_size
python -m benchmarks.melon_size --songs=20000
python -m benchmarks.melon_size --folder=/mnt/melon --stages="look-up;retrieval"

Makes a data set with as many songs, playlists, artists, albums and genres as
Melon has, of made-up features of one patch a song (29 kB of disk a song, 19 GB
in all) and made-up vectors of 1,024 numbers; then runs every stage, from the
split to the audit, in a process of its own. Prints a table of each stage's
time, its processor time, and the most memory of its process, mapped files left
out. Of WARP a few epochs are run, and the table has the time of all 50; of
songs of 30 s, which would take 117 GB, the audit is measured on some.

With --folder, data and results stay there, and the same command goes on after
the last finished stage; give the same --songs, --frames and --dims then.
"""

import argparse
from collections.abc import Sequence
import contextlib
import dataclasses
import pathlib
import tempfile

from benchmarks.melon_size import evaluation_stages
from benchmarks.melon_size import made_melon
from benchmarks.melon_size import stage_process
from benchmarks.parts import machine
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.data import song_store
from preprocessing.melon import melon_meta

RESULTS = "stages.json"


def make(folder: pathlib.Path, sizes: made_melon.Sizes) -> None:
  """Makes the metadata and the song store, where they are absent."""
  last = melon_meta.PLAYLIST_FILES[-1]
  if not (folder / melon_meta.FOLDER / last).exists():
    made_melon.write_metadata(folder, sizes)
  if not (folder / song_store.FILE_NAME).exists():
    ids = made_melon.song_ids(sizes)
    made_melon.write_store(folder / song_store.FILE_NAME, ids, sizes.frames)


def _known(path: pathlib.Path) -> dict[str, stage_process.Measured]:
  if not path.exists():
    return {}
  found = storage.read_made_json(path)
  return {k: stage_process.Measured(**v) for k, v in found.items()}


def run(
  folder: pathlib.Path, sizes: made_melon.Sizes, stages: Sequence[str]
) -> dict[str, stage_process.Measured]:
  """Runs the stages that have no result yet; returns those of all.

  Args:
    folder: where data and results are, or will be.
    sizes: of the data set.
    stages: names, in their order.
  """
  folder.mkdir(parents=True, exist_ok=True)
  make(folder, sizes)
  measured = _known(folder / RESULTS)
  for name in stages:
    if name in measured:
      continue
    absent = not (folder / made_melon.VECTORS).exists()
    if absent and name in evaluation_stages.STAGES:
      made_melon.write_vectors(folder, sizes.dims)
    print(f"{name} ...", flush=True)
    measured[name] = stage_process.measure(name, folder, sizes)
    content = {k: dataclasses.asdict(v) for k, v in measured.items()}
    storage.write_json(folder / RESULTS, content)
  return measured


def _time(seconds: float) -> str:
  if seconds >= 3600:
    return f"{seconds / 3600:.1f} h"
  return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def table(measured: dict[str, stage_process.Measured]) -> str:
  """Returns a table in Markdown, a row for each stage."""
  lines = ["| stage | time | processor | memory | |", "|---|---|---|---|---|"]
  for name, one in measured.items():
    about = "about " if one.part else ""
    lines.append(
      f"| {name} | {about}{_time(one.wall_s)} | {_time(one.processor_s)} | "
      f"{one.memory / 1e9:.1f} GB | {one.note} |"
    )
  return "\n".join(lines)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.melon_size",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  for field in dataclasses.fields(made_melon.Sizes):
    kind = type(field.default)
    parser.add_argument(f"--{field.name}", type=kind, default=field.default)
  parser.add_argument(
    "--folder", type=file_names.path, help="kept (default: a temporary one)"
  )
  parser.add_argument(
    "--stages",
    default=";".join(stage_process.STAGES),
    help="separated by semicolons",
  )
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  flags = _parse(argv)
  fields = [one.name for one in dataclasses.fields(made_melon.Sizes)]
  sizes = made_melon.Sizes(**{name: getattr(flags, name) for name in fields})
  stages = [one.strip() for one in flags.stages.split(";") if one.strip()]
  unknown = [one for one in stages if one not in stage_process.STAGES]
  if unknown:
    raise errors.InputError(
      f"--stages names {', '.join(unknown)}; it is any of "
      f"{'; '.join(stage_process.STAGES)}."
    )
  with contextlib.ExitStack() as stack:
    folder = flags.folder
    if folder is None:
      made = stack.enter_context(tempfile.TemporaryDirectory())
      folder = pathlib.Path(made)
    measured = run(folder, sizes, stages)
  print(f"{machine.describe()}; {sizes.songs:,} songs")
  print(table(measured))


if __name__ == "__main__":
  errors.run_command(main)
