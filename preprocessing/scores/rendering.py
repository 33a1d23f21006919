"""Renders scores by fluidsynth into a folder of tagged FLAC files."""

from collections.abc import Iterable, Iterator, Sequence
import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from typing import Any

import mutagen
import soundfile
import tqdm

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import storage
from preprocessing.scores import orchestration
from preprocessing.scores import score_notes
from preprocessing.scores.score_choice import Score

AUDIO = "audio"  # A folder for each composer.
RECORD = "scores.json"
LICENCES = "licences.json"
_WORK = ".rendering"
SOUNDFONTS = tuple(
  pathlib.Path("/usr/share", *path.split("/"))
  for path in (
    "sounds/sf2/FluidR3_GM.sf2",
    "soundfonts/FluidR3_GM.sf2",
    "sounds/sf2/default-GM.sf2",
  )
)
_PROGRAM = "fluidsynth"
# Begins the reasons that are not the score's own: these are tried again.
_PASSING = f"{_PROGRAM} fails: "
_RATE_HZ = melspectrogram.SETTINGS.sample_rate_hz


def find_soundfont(path: pathlib.Path | None) -> pathlib.Path:
  """Returns the soundfont given, or else a system's own.

  Raises:
    InputError: there is none, or fluidsynth is not installed.
  """
  if shutil.which(_PROGRAM) is None:
    raise errors.InputError(
      f"{_PROGRAM} is not installed: on Debian and Ubuntu, "
      "`apt-get install fluidsynth fluid-soundfont-gm`."
    )
  places = SOUNDFONTS if path is None else (path,)
  found = next((one for one in places if one.is_file()), None)
  if found is None:
    raise errors.InputError(
      f"there is no soundfont at {' or '.join(map(str, places))}: install "
      "fluid-soundfont-gm, or give the path of an .sf2 file as --soundfont."
    )
  with open(found, "rb") as file:
    head = file.read(12)
  if head[:4] != b"RIFF" or head[8:] != b"sfbk":
    raise errors.InputError(  # The program would play another one.
      f"{found} is no soundfont: give a whole .sf2 file as --soundfont."
    )
  return found


def play(
  midi: bytes, soundfont: pathlib.Path, work: pathlib.Path
) -> pathlib.Path:
  """Renders a MIDI file to a mono FLAC file in the folder `work`.

  Raises:
    Unreadable: it cannot be rendered now.
  """
  written, played = work / "score.mid", work / "score.wav"
  written.write_bytes(midi)
  command = [_PROGRAM, "-n", "-i", "-q", "-r", str(_RATE_HZ), "-T", "wav"]
  command += ["-O", "s16", "-g", "0.5", "-F", os.fspath(played)]
  command += [os.fspath(soundfont), os.fspath(written)]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode or not played.exists():
    said = (done.stderr.strip() or f"exit {done.returncode}").splitlines()
    raise score_notes.Unreadable(f"{_PASSING}{said[-1]}")
  try:
    samples, rate_hz = soundfile.read(played, always_2d=True)
    soundfile.write(work / "score.flac", samples.mean(axis=1), rate_hz)
  except soundfile.LibsndfileError as error:  # A full disk, mostly.
    raise score_notes.Unreadable(
      f"{_PASSING}its sound cannot be kept ({error.error_string})"
    ) from error
  return work / "score.flac"


def _tag(path: pathlib.Path, score: Score) -> None:
  file = mutagen.File(path, easy=True)
  file["title"] = pathlib.PurePosixPath(score.path).stem
  file["artist"] = score.composer
  if score.collection:
    file["album"] = f"{score.composer}: {score.collection}"
  file.save()


def render(
  score: Score,
  corpus: pathlib.Path,
  data_dir: pathlib.Path,
  soundfont: pathlib.Path,
  seed: int,
) -> dict[str, Any]:
  """Renders a score; returns what scores.json says of it.

  Args:
    score: which; its recording is written to `AUDIO`, whole or not at all.
    corpus: the folder that its path is relative to.
    data_dir: the data set's folder.
    soundfont: what is played.
    seed: of instruments and tempo, which depend on it and the score alone.
  """
  target = data_dir / AUDIO / score.audio
  target.parent.mkdir(parents=True, exist_ok=True)
  try:
    notes = score_notes.read(corpus / score.path)
    playing = orchestration.draw(notes.parts, f"{seed} {score.path}")
    midi = orchestration.midi(notes.parts, playing)
    with tempfile.TemporaryDirectory(dir=data_dir / _WORK) as work:
      made = play(midi, soundfont, pathlib.Path(work))
      try:
        _tag(made, score)
      except mutagen.MutagenError as error:  # A full disk, mostly.
        raise score_notes.Unreadable(
          f"{_PASSING}its tags cannot be written ({error})"
        ) from error
      made.rename(target)
  except score_notes.Unreadable as error:
    target.unlink(missing_ok=True)  # Of another score of this path.
    return {"failed": str(error)}
  about = dataclasses.asdict(playing) | {"with_repeats": notes.with_repeats}
  return {"failed": ""} | about


@contextlib.contextmanager
def _results(work: Any, scores: Sequence[Score], processes: int) -> Iterator:
  """Gives scores and what became of them, as they are done."""
  if processes == 1:
    yield ((score, work(score)) for score in scores)
    return
  spawn = multiprocessing.get_context("spawn")
  # Ctrl-C is the parent's, who lets the scores in work come to their end.
  ignore = {"initializer": signal.signal}
  ignore["initargs"] = signal.SIGINT, signal.SIG_IGN
  with concurrent.futures.ProcessPoolExecutor(
    processes, spawn, **ignore
  ) as pool:
    todo = {pool.submit(work, score): score for score in scores}
    done = concurrent.futures.as_completed(todo)
    try:
      yield ((todo[one], one.result()) for one in done)
    except concurrent.futures.BrokenExecutor as error:
      raise errors.RunError(
        "a process that renders scores was ended, as the system does where "
        "memory runs out. The scores rendered so far are kept, and the same "
        "command goes on; --processes=1 needs the least memory."
      ) from error
    finally:
      pool.shutdown(wait=True, cancel_futures=True)


def _source(soundfont: pathlib.Path, seed: int) -> dict[str, Any]:
  version = "none"
  if importlib.util.find_spec("music21"):
    version = importlib.metadata.version("music21")
  return {
    "seed": seed,
    "music21": version,
    "soundfont": soundfont.name,
    "soundfont_sha256": storage.sha256(soundfont),
  }


def _write_licences(
  data_dir: pathlib.Path, corpus: pathlib.Path, source: dict[str, Any]
) -> None:
  texts = {
    path.relative_to(corpus).as_posix(): path.read_text(errors="replace")
    for path in sorted(corpus.rglob("license.txt"))
  }
  about = {
    "scores": {
      "version": f"music21 {source['music21']}",
      "licence": "BSD-3-Clause (music21); of the scores, what the texts say",
      "texts": texts,
    },
    "soundfont": {
      "name": source["soundfont"],
      "sha256": source["soundfont_sha256"],
      "licence": "MIT, if it is FluidR3_GM of Debian; else see its own",
    },
  }
  storage.write_json(data_dir / LICENCES, about)


def _known(place: pathlib.Path, source: dict[str, Any]) -> dict[str, Any]:
  """Returns what scores.json says; refuses to mix it with another source."""
  if not place.exists():
    return {"source": source, "scores": {}}
  known = storage.read_made_json(place)
  differing = storage.differences(known["source"], source)
  if differing:
    raise errors.InputError(
      f"{place.parent} was rendered otherwise ({'; '.join(differing)}): give "
      "the same, or another --out."
    )
  return known


def render_all(
  scores: Sequence[Score],
  corpus: pathlib.Path,
  data_dir: pathlib.Path,
  soundfont: pathlib.Path,
  *,
  seed: int,
  processes: int,
) -> dict[str, dict[str, Any]]:
  """Renders scores to `AUDIO`; those that are there already are left alone.

  Args:
    scores: which.
    corpus: the folder that their paths are relative to.
    data_dir: the folder that `AUDIO`, `RECORD` and `LICENCES` are made in.
    soundfont: what is played.
    seed: of instruments and tempo.
    processes: how many scores are rendered at once.

  Returns:
    Path of each score -> why it failed, or empty, and how it is played.

  Raises:
    InputError: what is there was rendered with another seed, music21 or
      soundfont, or every score fails.
  """
  source, place = _source(soundfont, seed), data_dir / RECORD
  known = _known(place, source)
  data_dir.mkdir(parents=True, exist_ok=True)
  _write_licences(data_dir, corpus, source)
  made = known["scores"]
  files = {one.path: storage.sha256(corpus / one.path) for one in scores}
  todo = [
    score
    for score in scores
    if not _is_done(made.get(score.path), files[score.path])
    or not made[score.path]["failed"]
    and not (data_dir / AUDIO / score.audio).exists()
  ]
  work = functools.partial(
    render, corpus=corpus, data_dir=data_dir, soundfont=soundfont, seed=seed
  )
  shutil.rmtree(data_dir / _WORK, ignore_errors=True)
  (data_dir / _WORK).mkdir()
  with _results(work, todo, processes) as results:
    bar = tqdm.tqdm(results, "scores", len(todo), disable=None, unit="score")
    for score, about in bar:
      made[score.path] = about | {"sha256": files[score.path]}
      storage.write_json(place, known)
  shutil.rmtree(data_dir / _WORK)
  chosen = {score.path: made[score.path] for score in scores}
  _check_some(chosen, place)
  _say_others(made.keys() - chosen.keys(), data_dir / AUDIO)
  return chosen


def _is_done(made: dict[str, Any] | None, sha256: str) -> bool:
  """Returns whether a score was tried, as its file is now."""
  if made is None or made["failed"].startswith(_PASSING):
    return False
  return made.get("sha256", sha256) == sha256  # Earlier versions kept none.


def _say_others(paths: Iterable[str], audio: pathlib.Path) -> None:
  """Says which recordings earlier calls left, of scores not chosen now."""
  found = sorted(one for one in paths if (audio / f"{one}.flac").exists())
  if found:
    print(
      f"{len(found)} recordings of earlier calls stay, of scores that are not "
      f"among those chosen now, e.g. {found[0]}: delete them in {audio} to "
      "leave them out"
    )


def _failures(
  made: dict[str, dict[str, Any]],
) -> tuple[dict[str, str], dict[str, str]]:
  """Returns why scores failed, and those of them that are tried again."""
  failed = {path: one["failed"] for path, one in made.items() if one["failed"]}
  return failed, {
    path: why for path, why in failed.items() if why.startswith(_PASSING)
  }


def _check_some(made: dict[str, dict[str, Any]], place: pathlib.Path) -> None:
  failed, passing = _failures(made)
  if len(failed) == len(made):
    path, why = next(iter((passing or failed).items()))
    again = "the same command tries" if passing else "delete it to try"
    raise errors.InputError(
      f"none of {len(made)} scores can be rendered; one is {path}: "
      f"{why}. All are in {place}; {again} again."
    )


def summary(made: dict[str, dict[str, Any]], place: pathlib.Path) -> str:
  """Says how many scores were rendered, and names those that failed."""
  failed, passing = _failures(made)
  plain = [path for path, one in made.items() if not one.get("with_repeats", 1)]
  lines = [
    f"scores: {len(made) - len(failed)} rendered, {len(plain)} without their "
    f"repeats, which cannot be read; {len(failed)} failed (all in {place})"
  ]
  if passing:
    lines.append(
      f"  {len(passing)} of them by {_PROGRAM}: the same command tries these "
      "again"
    )
  lines += [f"  {path}: {why}" for path, why in list(failed.items())[:10]]
  return "\n".join(lines + (["  ..."] if len(failed) > 10 else []))
