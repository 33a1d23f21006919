"""A run with results whose songs have names that would break a page."""

import json
import pathlib

import numpy as np

from pcl_jax.data import catalogues
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import report
from pcl_jax.evaluation import task_base
from preprocessing.melon import melon_meta
from preprocessing.sample import song_clips
from preprocessing.sample import synthesis
from tests.support import quick_run
from tests.support.tiny import tiny_run

# Each would end a script, begin an element, or end a text.
ODD_NAMES = [
  "</script><img src=x onerror=alert(1)>",
  "\"quoted\" & 'quoted'",
  "\u2028 lines \u2029 \n of text",
  "\U0001f3b8 \u97f3\u697d {{ 7 * 7 }} ${1 + 1}",
  "<!--<script>",
]
ROW = "trained (SS)"
STEP = 12


def odd_name(row: int) -> str:
  """Returns the title of the song in a row of the catalogue."""
  return f"{row} {ODD_NAMES[row % len(ODD_NAMES)]}"


def write_names(data: pathlib.Path) -> None:
  """Writes metadata for a data set: odd titles of songs, genres, playlists."""
  made, folder = catalogues.load(data), data / melon_meta.FOLDER
  folder.mkdir()
  songs = [
    {
      "id": number,
      "song_name": odd_name(row),
      "artist_name_basket": [f"artist <b>{row % 7}</b>"],
    }
    for row, number in enumerate(made.song_ids.tolist())
  ]
  genres = {str(code): f"<i>{code}</i>" for code in made.genre_codes}
  content = {melon_meta.SONG_FILE: songs, melon_meta.GENRE_FILE: genres}
  for number, name in enumerate(melon_meta.PLAYLIST_FILES):
    content[name] = [
      {"id": i, "plylst_title": f"list </script> {i}"}
      for i in np.flatnonzero(made.playlist_files == number).tolist()
    ]
  for name, records in content.items():
    (folder / name).write_text(json.dumps(records), encoding="utf-8")


def write_clips(data: pathlib.Path, songs: int) -> None:
  """Writes a tone for each of the first songs."""
  time_s = np.arange(synthesis.RATE_HZ) / synthesis.RATE_HZ
  for number in catalogues.load(data).song_ids[:songs].tolist():
    tone = 0.3 * np.sin(2 * np.pi * (200 + number) * time_s)
    song_clips.write(data / "clips" / f"{number}.ogg", tone)


def write_metrics(workdir: pathlib.Path, rows: int = 12) -> None:
  """Writes the numbers of a training that nobody did."""
  rng = np.random.default_rng(0)
  names = {
    "train": ["songs_per_s", "data_wait_share", "audio_SS", "total"],
    "validation": ["audio_SS", "collapse_effective_rank", "total"],
  }
  lines = [
    {"kind": kind, "step": step, "epoch": step // 4}
    | dict(zip(some, rng.random(len(some)).tolist(), strict=True))
    for step in range(1, rows + 1)
    for kind, some in names.items()
  ]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (workdir / "metrics.jsonl").write_text(text)


def _found(key: str, items: np.ndarray, seed: int) -> task_base.Result:
  rng = np.random.default_rng(seed)
  names = ("average_precision", "r_precision")
  columns = {name: rng.random(len(items)) for name in names}
  metrics = bootstrap.mean_metrics(columns, draws=100)
  return task_base.Result(metrics, {key: items} | columns, {"odd <b>": 2})


def write_results(workdir: pathlib.Path, made: catalogues.Catalogue) -> None:
  """Writes the results of an evaluation that nobody did."""
  tests = made.song_ids[made.rows_of(catalogues.TEST)]
  of_tasks = {
    "artist": ("song_id", tests),
    "playlist_continuation": ("playlist", np.arange(9)),
    "melon_50": ("tag", made.genre_codes[:4]),
  }
  rows: dict[str, dict] = {task: {} for task in of_tasks}
  items: dict[str, dict] = {task: {} for task in of_tasks}
  for task, place in of_tasks.items():
    for seed, row in enumerate((ROW, "chance", "untrained")):
      found = _found(*place, seed)
      rows[task][row] = report.as_dict(found)
      items[task][row] = found.per_item
  rows["hubs"] = {ROW: {"not_given": "nobody <i>asked</i>"}}
  undefined = {"value": None, "interval_95": [None, None], "items": 0}
  rows["collapse"] = {
    ROW: rows["artist"][ROW] | {"metrics": {"effective_rank": undefined}}
  }
  nothing = np.full(len(tests), np.nan)
  items["collapse"] = {ROW: {"song_id": tests, "mean_cosine": nothing}}
  check = {"name": "copies", "passed": True, "found": "none <b>of them</b>"}
  results = {
    "checkpoint": "best",
    "step": STEP,
    "data": "data/x",
    "fingerprint": "0123456789abcdef" * 4,
    "songs": len(made),
    "split_by": "song",
    "trained": ROW,
    "precision_at_5": {
      name: {
        "artist": {
          "precision_at_5": value,
          "interval_95": [value - 0.125, value + 0.125],
          "queries": len(tests),
        }
      }
      for name, value in ((ROW, 0.75), ("chance", 0.25))
    },
    "tasks": rows,
    "checks": [
      check | {"songs": [], "expected": False},
      check
      | {"name": "artists", "passed": False, "songs": [1], "expected": True},
    ],
    "certificate": {"config_sha256": "fedcba9876543210" * 4},
    "notes": ["These numbers were <b>drawn</b>."],
  }
  report.write(workdir, report.Evaluation(results, items, {}))


def make(root: pathlib.Path) -> pathlib.Path:
  """Makes a run, ROOT/run, of a data set, ROOT/data, without any training.

  The quick backbone is registered.
  """
  data = tiny_run.make_data_set(root / "data")
  write_names(data)
  config = json.loads(tiny_run.quick_config(data).to_json())
  run = quick_run.save(root / "run", step=STEP, config=config)
  (run / "config.json").write_text(json.dumps(config))
  write_metrics(run)
  write_results(run, catalogues.load(data))
  return run
