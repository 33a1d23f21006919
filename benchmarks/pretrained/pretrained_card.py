"""What the card of the encoder in the box says beyond that of any bundle."""

import pathlib
from typing import Any

from benchmarks.real_music import real_scores
from pcl_jax.common import storage
from pcl_jax.data import dataset
from preprocessing.free_packages import music_tree
from preprocessing.scores import rendering

BEGIN = "\n## The music it was trained on\n"


def _packages(folder: pathlib.Path) -> list[str]:
  known = storage.read_made_json(folder / music_tree.LICENCES)
  used = {name: one for name, one in known.items() if one["sound_files"]}
  lines = [
    f"Music of {len(used)} packages of free games from Debian 12, and its "
    "licences:",
    "",
    "| package | version | licence |",
    "|---|---|---|",
  ]
  for name, about in sorted(used.items()):
    lines.append(f"| {name} | {about['version']} | {about['licence']} |")
  return lines


def _scores(folder: pathlib.Path) -> list[str]:
  data = dataset.DataSet(folder / "data")
  count = len(data.store) - len(real_scores.recordings(data))
  if not count:
    return []
  source: dict[str, Any] = storage.read_made_json(
    folder / "scores" / rendering.RECORD
  )["source"]
  return [
    "",
    f"And {count} scores of the corpus of music21 {source['music21']} "
    f"(BSD-3-Clause), played by fluidsynth with {source['soundfont']}.",
  ]


def append(bundle: pathlib.Path, folder: pathlib.Path, hours: float) -> None:
  """Adds the sources and limits to the card of a bundle.

  Args:
    bundle: its folder.
    folder: of benchmarks.pretrained, with free_music/, scores/ and data/.
    hours: of audio in the training songs.
  """
  path = bundle / "README.md"
  card = path.read_text(encoding="utf-8").partition(BEGIN)[0].rstrip()
  lines = [
    *_packages(folder / "free_music"),
    *_scores(folder),
    "",
    f"It was trained on {hours:.1f} hours of this, the first three minutes of "
    "each track; other artists and albums were kept for the test. "
    "Artists are those of the tags and the composers of the scores, albums "
    "those of the tags or else the packages.",
    "",
    "## Limits",
    "",
    "- It has heard little music, most of it instrumental and made for games: "
    "hardly any singing, and little of what is in the charts or of most of "
    "the world's traditions.",
    "- What is near in its vectors sounds alike to it; they know no lyrics, "
    "no moods by name and no quality.",
    "- An album's recordings share a way of production, which it has learned "
    "to hear: the same song recorded otherwise may lie far away.",
    "- Rendered scores are among the songs of the results above; "
    "docs/real_music.md of pcl_jax has those of recordings alone, beside other "
    "programs.",
  ]
  text = "\n".join([card, BEGIN, *lines])
  storage.write_text(path, text + "\n")
