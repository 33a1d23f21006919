"""Tiny copies of the published tagging sets, made up, for tests."""

import pathlib

import numpy as np
import soundfile

from preprocessing.tagging import gtzan
from preprocessing.tagging import magnatagatune
from preprocessing.tagging import mtg_jamendo
from preprocessing.tagging import tagging_clips

MTAT_TAGS = [f"tag {i}" for i in range(60)]


def write_clip(
  path: pathlib.Path, seed: int = 0, *, seconds: float = 0.3
) -> pathlib.Path:
  """Writes noise under a tone; the suffix says in which format."""
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  time_s = np.arange(round(seconds * 16_000)) / 16_000
  tone = 0.4 * np.sin(2 * np.pi * (200 + 50 * (seed % 40)) * time_s)
  soundfile.write(path, tone + 0.1 * rng.normal(size=len(time_s)), 16_000)
  return path


def gtzan_lines(per_genre: int = 1) -> dict[str, list[str]]:
  """Returns the lines of GTZAN's lists by file; every genre in each."""
  files = enumerate(gtzan.FILES.values())
  return {
    name: [
      f"{genre}/{genre}.{part * per_genre + i:05d}.wav"
      for genre in gtzan.GENRES
      for i in range(per_genre)
    ]
    for part, name in files
  }


def make_gtzan_lists(folder: pathlib.Path) -> pathlib.Path:
  """Writes the lists of 30 clips; returns their folder."""
  folder.mkdir(parents=True)
  for name, lines in gtzan_lines().items():
    (folder / name).write_text("\n".join([*lines, ""]))
  return folder


def make_gtzan(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  """Makes lists and audio of 30 clips; returns the folders of both."""
  lists, audio = make_gtzan_lists(folder / "lists"), folder / "audio"
  for lines in gtzan_lines().values():
    for line in lines:
      write_clip(audio / "genres" / line, seed=sum(line.encode()))
  return lists, audio


def jamendo_rows(subset: str = "instrument", tracks: int = 4):
  """Returns part -> rows of a subset's lists, all its tags in each part."""
  _, number, categories = mtg_jamendo.SUBSETS[subset]
  tags = [
    f"{categories[i % len(categories)]}---t{i:02d}" for i in range(number)
  ]
  rows = {}
  for split, part in tagging_clips.SPLITS.items():
    rows[part] = []
    for i in range(tracks):
      track = 1000 + 10 * split + i
      first = [f"track_{track:07d}", "artist_1", "album_1"]
      first += [f"{track % 100:02d}/{track}.mp3", f"{60 + i}.5"]
      rows[part].append(first + tags[i::tracks])
  return rows


def write_jamendo(
  folder: pathlib.Path, rows, subset: str = "instrument", end: str = "\r\n"
) -> pathlib.Path:
  """Writes the three lists of split 0; returns the folder of the splits."""
  columns = "TRACK_ID ARTIST_ID ALBUM_ID PATH DURATION TAGS".split()
  place = folder / "data" / "splits" / "split-0"
  place.mkdir(parents=True, exist_ok=True)
  for split, part in tagging_clips.SPLITS.items():
    lines = ["\t".join(row) for row in [columns, *rows[part]]]
    path = place / mtg_jamendo.file_name(subset, split)
    path.write_bytes("".join(line + end for line in lines).encode())
  return folder


def make_jamendo(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  """Makes lists and audio of 12 tracks; returns the folders of both."""
  rows = jamendo_rows()
  lists = write_jamendo(folder / "repository", rows)
  audio = folder / "audio-low"
  for some in rows.values():
    for row in some:
      path = audio / row[3].replace(".mp3", ".low.mp3")
      write_clip(path, seed=int(row[0][6:]))
  return lists, audio


def mtat_rows() -> list[list[str]]:
  """Returns header and 48 clips: of a folder's three, the last has no tag.

  Tag i stands at every clip whose number is a multiple of i + 1, so that the
  first tag is the most frequent; the last ten tags have no clip.
  """
  rows = [["clip_id", *MTAT_TAGS, "mp3_path"]]
  for number in range(48):
    folder = "0123456789abcdef"[number // 3]
    has = [
      number % 3 < 2 and i < 50 and (number + 1) % (i + 1) == 0
      for i in range(60)
    ]
    values = [str(int(one)) for one in has]
    rows.append([str(number + 2), *values, f"{folder}/clip-{number}.mp3"])
  return rows


def write_mtat(folder: pathlib.Path, rows, end: str = "\n") -> pathlib.Path:
  """Writes the annotations, with quotes as the published file has them."""
  folder.mkdir(parents=True, exist_ok=True)
  lines = ["\t".join(f'"{field}"' for field in row) for row in rows]
  text = "".join(line + end for line in lines)
  (folder / magnatagatune.FILE).write_bytes(text.encode())
  return folder


def make_mtat(folder: pathlib.Path) -> pathlib.Path:
  """Makes annotations and audio of 48 clips in one folder; returns it."""
  rows = mtat_rows()
  write_mtat(folder, rows)
  for row in rows[1:]:
    write_clip(folder / row[-1].replace(".mp3", ".wav"), seed=int(row[0]))
  return folder


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  """Returns the files of a folder, by name."""
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
