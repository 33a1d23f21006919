"""Measures how robust an encoder is: similarity, and a probe's accuracy.

python -m pcl_jax.evaluation.robustness --workdir=runs/sample --audio=~/music
python -m pcl_jax.evaluation.robustness --workdir=runs/sample --audio=~/music
  --changes=gain,mp3 --plot=robustness.png    (on one line)

Recordings are made louder, noisy, duller, faster or slower, higher or lower,
and encoded as MP3. For each change and strength the table shows the cosine of
the changed recording's embedding with the clean one's (with 95 % bootstrap
intervals), how often the clean one is the nearest of all clean ones, and how
often a linear probe is still right, which was trained on clean recordings to
name their folders (artists, genres). Writes robustness.json and
robustness.parquet (each recording) into the workdir.
"""

from collections.abc import Sequence
import math
import pathlib
from typing import Any

import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.common import command_line
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import extras
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.common import storage
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import encoder_loading
from pcl_jax.evaluation import report
from pcl_jax.evaluation.robustness import audio_changes
from pcl_jax.evaluation.robustness import robustness_measures
from pcl_jax.models import compiled_encoder

FILE_NAME = "robustness.json"
TABLE_NAME = "robustness.parquet"
_BATCH_PATCHES = 64
_SHOWN_FAILURES = 10


def choose_changes(
  names: str,
) -> tuple[tuple[audio_changes.Change, ...], dict[str, str]]:
  """Returns the changes that a list names, and why others are not available.

  Args:
    names: names of changes, separated by commas, or `all`.

  Raises:
    InputError: a name is unknown.
  """
  known = {change.name: change for change in audio_changes.CHANGES}
  wanted = [name.strip() for name in names.split(",") if name.strip()]
  wanted = list(known) if wanted == ["all"] else wanted
  unknown = [name for name in wanted if name not in known]
  if unknown or not wanted:
    raise errors.InputError(
      f"--changes={names} names {', '.join(unknown) or 'no change'}; it is "
      f"all, or any of {', '.join(known)}, separated by commas."
    )
  missing = {}
  if "mp3" in wanted and not audio_changes.has_mp3():
    missing["mp3"] = "this libsndfile does not write MP3"
  chosen = [known[name] for name in wanted if name not in missing]
  return tuple(chosen), missing


def measure(
  workdir: pathlib.Path,
  source: audio_sources.Source,
  *,
  changes: str = "all",
  seconds: float = 30.0,
  **probe: Any,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Measures the robustness of a run's best encoder.

  Args:
    workdir: folder of the run, or of a bundle.
    source: the recordings.
    changes: names of changes, separated by commas, or `all`.
    seconds: length of the beginning of each recording that is used.
    **probe: options of the probe.

  Returns:
    Plain values, fit for json, and columns of a value for each recording.

  Raises:
    InputError: there is no checkpoint, or no recording can be read.
  """
  if not 0 < seconds < math.inf:
    raise errors.InputError(f"--seconds is {seconds:g}; it must be above 0.")
  chosen, missing = choose_changes(changes)
  encoder, meta = encoder_loading.load_network(workdir)
  found = robustness_measures.embed_changes(
    compiled_encoder.make_embedder(encoder),
    source,
    chosen,
    seconds=seconds,
    batch_patches=_BATCH_PATCHES,
    channels=channel_mix.of(meta["feature"]),
  )
  rows, table = robustness_measures.measure_similarity(found)
  units = {change.name: change.unit for change in chosen}
  for row in rows:
    row["unit"] = units[row["change"]]
  about = robustness_measures.measure_probe(found, rows, **probe)
  between = robustness_measures.between_songs(found.clean)
  return {
    "step": meta["progress"]["step"],
    "recordings": len(found.ids),
    "seconds": seconds,
    "cosine_of_different_recordings": None if math.isnan(between) else between,
    "probe": about,
    "changes": rows,
    "not_available": missing,
    "failures": found.failures,
  }, table


def _cell(metric: dict[str, Any]) -> str:
  return report.cell(metric["value"], metric["interval_95"])


def format_results(results: dict[str, Any]) -> str:
  """Returns the table that people read."""
  probe = results["probe"]
  lines = [
    f"Robustness of {results['recordings']} recordings, the first "
    f"{results['seconds']:g} s of each; 95 % bootstrap intervals."
  ]
  between = results["cosine_of_different_recordings"]
  if between is not None:
    lines.append(
      f"Two different recordings have a mean cosine of {between:.3f}."
    )
  columns = ["cosine", "found_first"]
  if "not_given" in probe:
    lines.append(f"No probe: {probe['not_given']}.")
  else:
    columns += ["accuracy", "drop"]
    lines.append(
      f"Probe: {probe['classes']} folders, {probe['test_songs']} test "
      f"recordings, accuracy {_cell(probe['clean_accuracy'])} when clean."
    )
  head = ["change", "strength", *(one.replace("_", " ") for one in columns)]
  cells = [
    [
      row["change"],
      f"{row['strength']:g} {row['unit']}",
      *(_cell(row[one]) for one in columns),
    ]
    for row in results["changes"]
  ]
  lines += ["", *console.grid(head, cells)]
  lines += [
    f"{name}: not available: {why}"
    for name, why in results["not_available"].items()
  ]
  failures = results["failures"]
  if failures:
    lines.append(f"{len(failures)} recordings could not be read:")
    shown = list(failures.items())[:_SHOWN_FAILURES]
    lines += [f"  {file_names.shown(name)}: {why}" for name, why in shown]
  return "\n".join(lines)


def draw(results: dict[str, Any], path: pathlib.Path) -> None:
  """Draws a curve for each kind of change, as PNG."""
  from matplotlib import figure

  names = list(dict.fromkeys(row["change"] for row in results["changes"]))
  columns = min(4, len(names))
  lines = -(-len(names) // columns)
  made = figure.Figure(  # pyplot would ask for a display.
    (3.4 * columns, 2.8 * lines + 0.4), layout="constrained"
  )
  grid = made.subplots(lines, columns, squeeze=False, sharey=True).ravel()
  for axes, name in zip(grid, names, strict=False):
    rows = [row for row in results["changes"] if row["change"] == name]
    _draw_change(axes, rows, results)
    axes.set_title(name, fontsize=10)
  for axes in grid[len(names) :]:
    axes.set_visible(False)
  handles, labels = grid[0].get_legend_handles_labels()
  made.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
  with storage.write_aside(path) as partial:
    made.savefig(partial, format="png", dpi=110)


def _draw_change(axes: Any, rows: list[dict], results: dict[str, Any]) -> None:
  x = [row["strength"] for row in rows]
  curves = {
    "cosine with the clean embedding": "cosine",
    "clean one is the nearest": "found_first",
    "probe's accuracy": "accuracy",
  }
  for color, (label, key) in enumerate(curves.items()):
    if key not in rows[0]:
      continue
    bounds = np.array([row[key]["interval_95"] for row in rows])
    y = [row[key]["value"] for row in rows]
    axes.plot(x, y, "o-", color=f"C{color}", label=label, markersize=4)
    axes.fill_between(x, *bounds.T, color=f"C{color}", alpha=0.15, linewidth=0)
  between = results["cosine_of_different_recordings"]
  if between is not None:
    axes.axhline(
      between, color="C0", linestyle=":", label="cosine of different recordings"
    )
  if "clean_accuracy" in results["probe"]:
    axes.axhline(
      results["probe"]["clean_accuracy"]["value"],
      color="C2",
      linestyle=":",
      label="probe's accuracy when clean",
    )
  if rows[0]["unit"] == "Hz":
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{one:g}" for one in x])
    axes.minorticks_off()
  axes.set_xlabel(rows[0]["unit"])
  axes.set_ylim(top=1.05)
  axes.grid(alpha=0.3)


def main(argv: Sequence[str] | None = None) -> int | None:
  """Parses the command line, prints the table, writes files."""
  parser = command_line.parser("pcl_jax.evaluation.robustness", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  add("--workdir", **path, required=True, help="folder of the run, or a bundle")
  text = "audio files, or folders"
  add("--audio", **path, required=True, nargs="+", help=text)
  known = ", ".join(change.name for change in audio_changes.CHANGES)
  add("--changes", default="all", help=f"all (default), or any of {known}")
  add(
    "--seconds",
    type=float,
    default=30.0,
    help="length of the beginning of each recording that is used (default 30)",
  )
  add("--plot", **path, help="PNG file for the curves")
  flags = parser.parse_args(argv)
  jax_setup.start()
  extras.check("the probe", "iterstrat")
  workdir = flags.workdir
  if flags.plot:
    extras.check("--plot", "matplotlib")
    storage.check_writable(flags.plot, "give another --plot")
  if workdir.is_dir():  # Else it is refused for what it is.
    remedy = "give a copy of it that you may write to as --workdir"
    storage.check_writable(workdir / FILE_NAME, remedy)
  results, table = measure(
    workdir,
    audio_sources.audio_files(flags.audio),
    changes=flags.changes,
    seconds=flags.seconds,
  )
  storage.write_json(workdir / FILE_NAME, results)
  report.write_items(workdir / TABLE_NAME, {"trained": table})
  print(format_results(results))
  if flags.plot:
    draw(results, flags.plot)
    print(f"\ncurves: {flags.plot}")
  print(f"written to {workdir / FILE_NAME}")
  return errors.EXIT_FAILED if results["failures"] else None
