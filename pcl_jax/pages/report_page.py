"""The report page: a run, or several, on one page that needs no network."""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.evaluation import compare
from pcl_jax.evaluation import report
from pcl_jax.pages import chart_specs
from pcl_jax.pages import curve_part
from pcl_jax.pages import page_files
from pcl_jax.pages import result_part
from pcl_jax.pages import run_records
from pcl_jax.pages import song_part

FILE_NAME = "report.html"


@dataclasses.dataclass(frozen=True)
class Written:
  """What was written.

  Attributes:
    paths: the page, and files with its data where it would be too large.
    songs: number of songs on the map; 0 where there is no map.
    method: how these were placed.
    heard: number of songs that can be played.
    notes: texts that say what is missing.
  """

  paths: list[pathlib.Path]
  songs: int
  method: str
  heard: int
  notes: list[str]


def _names(workdirs: Sequence[pathlib.Path]) -> list[str]:
  """Returns what runs are called: the folder; its path where two are alike."""
  short = [file_names.shown(one.name or str(one)) for one in workdirs]
  if len(set(short)) == len(short):
    return short
  return [file_names.shown(one) for one in workdirs]


def _read_results(
  workdir: pathlib.Path, notes: list[str]
) -> compare.Evaluated | None:
  """Returns the evaluation of a run; None where there is none."""
  if (report.folder_of(workdir) / report.FILE_NAME).exists():
    return compare.read(workdir)
  notes.append(
    f"{workdir} has not been evaluated: there are no results. Make them with "
    f"python -m pcl_jax.evaluate --workdir={workdir}"
  )
  return None


def _read_songs(
  workdir: pathlib.Path,
  page: pathlib.Path,
  results: dict[str, Any],
  notes: list[str],
  **places: Any,
) -> song_part.SongPart | None:
  """Returns the songs; None where the run has no encoder or data any more."""
  which = results.get("checkpoint", "best")
  try:
    songs = song_part.make(workdir, page, which=which, **places)
  except errors.InputError as error:
    if any(places.values()):  # Somebody asked for a map of these.
      raise
    notes.append(f"There is no map of the songs: {error}")
    return None
  if songs.left_out:
    notes.append(
      f"The map has {len(songs.sheet)} songs that were drawn at random: "
      f"{songs.left_out} others are neither on it nor among the nearest songs."
    )
  evaluated = results.get("step", songs.step)
  if evaluated != songs.step:
    notes.append(
      f"The results are of step {evaluated} and the map is of step "
      f"{songs.step}: evaluate again."
    )
  return songs


def _facts(
  record: run_records.RunRecord,
  results: dict[str, Any],
  songs: song_part.SongPart | None,
) -> list[tuple[str, str]]:
  """Returns what was trained on what, in a few lines."""
  config, certificate = record.config, results.get("certificate", {})
  data = config.get("data", {})
  audio = config.get("model_params", {}).get("audio", {})
  steps = [row["step"] for rows in record.rows.values() for row in rows]
  evaluated = ""
  if "step" in results:
    evaluated = (
      f"step {results['step']}, the {results['checkpoint']} checkpoint"
    )
  facts = {
    "encoder": results.get("trained"),
    "network": ", ".join(f"{key} {value}" for key, value in audio.items()),
    "data set": results.get("data") or data.get("dir"),
    "songs": _count_songs(songs) or results.get("songs"),
    "split by": results.get("split_by"),
    "steps": f"{max(steps)}, in batches of {data.get('batch_size')}"
    if steps
    else "",
    "evaluated": evaluated,
    "seed": config.get("seed"),
    "data hash": _short(results.get("fingerprint")),
    "config hash": _short(certificate.get("config_sha256")),
    "weights hash": _short(
      certificate.get("checkpoint", {}).get("encoder_sha256")
    ),
  }
  return [
    (key, file_names.shown(str(value)))
    for key, value in facts.items()
    if value not in (None, "")
  ]


def _short(digest: str | None) -> str:
  """Returns the beginning of a SHA-256; the certificate has all of it."""
  return f"{digest[:16]}..." if digest else ""


def _count_songs(songs: song_part.SongPart | None) -> str:
  """Returns the songs of each part; nothing where these are not all there."""
  if songs is None or songs.left_out:
    return ""
  splits = songs.sheet.splits
  parts = [f"{splits.count(one)} {one}" for one in dict.fromkeys(splits)]
  return f"{len(songs.sheet)} ({', '.join(sorted(parts))})"


def _song_context(songs: song_part.SongPart) -> dict[str, Any]:
  confusion = None
  if songs.genres:
    matrix = songs.confusion.tolist()
    confusion = {
      "spec": chart_specs.confusion(songs.genres, matrix),
      "head": ["song", *songs.genres],
      "rows": [
        [name, *(f"{share:.1%}" for share in shares)]
        for name, shares in zip(songs.genres, matrix, strict=True)
      ],
    }
  return {
    "count": len(songs.sheet),
    "method": songs.method,
    "step": songs.step,
    "spec": songs.spec,
    "by": chart_specs.BY,
    "heard": sum(map(bool, songs.columns["audio"])),
    "confusion": confusion,
  }


def _result_context(results: dict[str, Any]) -> dict[str, Any]:
  tasks = result_part.tasks(results)
  return {
    "parts": result_part.look_up(results) + tasks,
    "titles": {one["name"]: one["title"] for one in tasks},
    "checks": result_part.checks(results),
    "certificate": result_part.flat(results.get("certificate", {})),
    "notes": results.get("notes", []),
  }


def write(
  workdirs: Sequence[pathlib.Path],
  out: pathlib.Path | None = None,
  *,
  data_dir: str | None = None,
  audio: pathlib.Path | None = None,
) -> Written:
  """Writes the report of a run, or of several on one page.

  The page has curves, results with intervals, a map of the songs with their
  neighbours, the values of all items, and the audit. What a run does not have
  is left out, and the notes say so. Further runs have curves, and paired tests
  against the first.

  Args:
    workdirs: folders of runs, the one that the page is about first; further
      ones may be evaluated tables of vectors.
    out: the page's file; None for report.html in the first run's folder.
    data_dir: data set of the songs; None for the one that the run trained on.
    audio: folder of the songs' audio; see `song_sheet.audio_links`.

  Raises:
    InputError: a folder is not that of a run, runs cannot be compared, a file
      is damaged, or the packages of the extra `report` are not installed.
  """
  page = page_files.Page("report")
  names, first = _names(workdirs), workdirs[0]
  out = report.folder_of(first) / FILE_NAME if out is None else out
  records = [run_records.read(one) for one in workdirs]
  storage.check_writable(out, "give another --out")
  notes = [note for record in records for note in record.notes]
  compared = None
  if len(workdirs) > 1:
    runs = [compare.read(one) for one in workdirs]
    compared = result_part.differences(runs, names)
  found = _read_results(first, notes)
  results = found.results if found else {}
  places = {"data_dir": data_dir, "audio": audio}
  songs = _read_songs(first, out, results, notes, **places)
  page.data["history"], fields = curve_part.history(records, names)
  page.data["songs"] = songs.columns if songs else None
  page.data["items"] = result_part.items(found, songs) if found else {}
  paths = page.write(
    out,
    {
      "names": names,
      "facts": _facts(records[0], results, songs),
      "config": result_part.flat(records[0].config),
      "curves": curve_part.sections(fields, names),
      "compared": compared,
      "songs": _song_context(songs) if songs else None,
      "results": _result_context(results) if found else None,
      "notes": notes,
    },
  )
  heard = sum(map(bool, songs.columns["audio"])) if songs else 0
  count = len(songs.sheet) if songs else 0
  return Written(paths, count, songs.method if songs else "", heard, notes)
