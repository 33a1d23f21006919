"""Tests of preprocessing.scores: what is drawn, and how it is played."""

import importlib.util
import os
import shutil

import mutagen
import numpy as np
import pytest
import soundfile

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.library import audio_tags
from preprocessing.scores import orchestration
from preprocessing.scores import rendering
from preprocessing.scores import score_choice
from preprocessing.scores import score_notes
from preprocessing.scores.score_notes import Note
from preprocessing.scores.score_notes import Notes

PARTS = [[Note(0.0, 1.0, 72), Note(1.0, 0.5, 74)], [Note(0.0, 1.5, 40)]]


def _corpus(folder):
  paths = [f"bach/bwv{i}.{j}.mxl" for i in range(5) for j in range(2)]
  paths += ["haydn/opus1/movement1.mxl", "demos/a.mxl", "haydn/readme.txt"]
  for path in paths:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).touch()
  return folder


def test_scores_are_drawn_of_each_composer_in_turn(tmp_path):
  corpus = _corpus(tmp_path)
  few, all_of_them = (score_choice.choose(corpus, n, 1) for n in (3, 99))
  assert [one.composer for one in few] == ["bach", "haydn", "bach"]
  assert all_of_them[:3] == few and len(all_of_them) == 11
  assert score_choice.choose(corpus, 99, 2) != all_of_them
  assert few[1].collection == "opus1"
  assert few[0].collection == few[0].path[5:9]


def test_a_corpus_without_scores_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="has no score"):
    score_choice.choose(tmp_path, 3, 0)


def test_without_music21_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  with pytest.raises(errors.InputError, match=r"\[scores\]"):
    score_choice.corpus_folder()


def test_each_part_is_played_by_what_can_play_it():
  ranges = {
    program: (low, high)
    for family in orchestration._FAMILIES.values()
    for program, low, high in family
  }
  drawn = [orchestration.draw(PARTS, str(seed)) for seed in range(50)]
  for playing in drawn:
    for part, program in zip(PARTS, playing.programs, strict=True):
      low, high = ranges[program]
      assert all(low <= note.pitch <= high for note in part)
    assert 0.85 <= playing.tempo <= 1.2
  assert len({one.family for one in drawn}) > 5
  assert drawn[3] == orchestration.draw(PARTS, "3")


def _events(track):
  """Yields time and message of the events of a track."""
  place, now = 0, 0
  while place < len(track):
    delta = 0
    while True:
      byte, place = track[place], place + 1
      delta = delta << 7 | byte & 0x7F
      if byte < 0x80:
        break
    now += delta
    size = {0xC: 2, 0xF: 3}.get(track[place] >> 4, 3)
    yield now, tuple(track[place : place + size])
    place += size


def test_a_midi_file_has_the_notes_at_their_times():
  playing = orchestration.Playing("piano", [0, 5], 0.5, 100)
  made = orchestration.midi(PARTS, playing)
  assert made[:14] == b"MThd\0\0\0\6\0\0\0\1\x01\xf4"
  assert int.from_bytes(made[18:22]) == len(made[22:])
  assert list(_events(made[22:])) == [
    (0, (0xC0, 0)),
    (0, (0xC1, 5)),
    (0, (0x90, 72, 100)),
    (0, (0x91, 40, 100)),
    (2000, (0x80, 72, 0)),
    (2000, (0x90, 74, 100)),
    (3000, (0x80, 74, 0)),
    (3000, (0x81, 40, 0)),
    (3000, (0xFF, 0x2F, 0)),
  ]


_PLAY = rendering.play
_LAST = 'while [ "$1" != -F ]; do shift; done; last=$2'  # What it writes.


@pytest.fixture
def fake(tmp_path, monkeypatch):
  """A parser and a renderer that know no music; returns what was rendered."""
  rendered = []

  def read(path):
    if "bwv3" in path.name:
      raise score_notes.Unreadable("bad")
    rendered.append(path.name)
    return Notes(PARTS, with_repeats="bwv4" not in path.name)

  def play(midi, _, work):
    hz = 100 + sum(midi) % 3000
    wave = 0.3 * np.sin(2 * np.pi * hz * np.arange(8000) / 16_000)
    soundfile.write(work / "score.flac", wave, 16_000)
    return work / "score.flac"

  monkeypatch.setattr(score_notes, "read", read)
  monkeypatch.setattr(rendering, "play", play)
  (tmp_path / "font.sf2").write_bytes(b"font")
  return rendered


def _render(tmp_path, count=99, seed=0):
  corpus = _corpus(tmp_path / "corpus")
  scores = score_choice.choose(corpus, count, seed)
  return rendering.render_all(
    scores,
    corpus,
    tmp_path / "data",
    tmp_path / "font.sf2",
    seed=seed,
    processes=1,
  )


def test_scores_are_rendered_and_those_that_fail_are_named(tmp_path, fake):
  made = _render(tmp_path)
  place = tmp_path / "data" / rendering.RECORD
  assert [path for path, one in made.items() if one["failed"]] == [
    path for path in made if "bwv3" in path
  ]
  said = rendering.summary(made, place)
  assert "9 rendered, 2 without their repeats" in said
  assert "2 failed" in said and "bwv3.0.mxl: bad" in said
  tags = audio_tags.read_tags(
    tmp_path / "data" / rendering.AUDIO / "bach/bwv1.0.mxl.flac"
  )
  assert (tags.artists, tags.albums) == (("bach",), ("bach: bwv1",))
  licences = storage.read_json(tmp_path / "data" / rendering.LICENCES)
  assert licences["soundfont"]["sha256"]
  assert not list((tmp_path / "data").rglob(".*"))


def test_what_is_rendered_is_left_alone(tmp_path, fake):
  _render(tmp_path, 4)
  first = list(fake)
  _render(tmp_path)
  assert len(fake) == len(set(fake)) == 9 and fake[: len(first)] == first
  gone = tmp_path / "data" / rendering.AUDIO / "bach/bwv1.0.mxl.flac"
  gone.unlink()
  _render(tmp_path)
  assert fake[9:] == ["bwv1.0.mxl"] and gone.exists()
  with pytest.raises(errors.InputError, match="seed: there 0, here 1"):
    _render(tmp_path, seed=1)


def test_recordings_of_scores_not_chosen_now_stay_and_are_named(
  tmp_path, fake, capsys
):
  made = _render(tmp_path)
  assert "stay" not in capsys.readouterr().out
  few = _render(tmp_path, 3)
  left = [path for path in made if path not in few and not made[path]["failed"]]
  said = capsys.readouterr().out
  assert f"{len(left)} recordings of earlier calls stay" in said
  assert min(left) in said
  shutil.rmtree(tmp_path / "data" / rendering.AUDIO / "haydn")
  for path in left:
    (tmp_path / "data" / rendering.AUDIO / f"{path}.flac").unlink(True)
  _render(tmp_path, 3)
  assert "stay" not in capsys.readouterr().out


def test_another_score_of_the_same_path_is_rendered(tmp_path, fake):
  _render(tmp_path)
  assert len(fake) == 9
  for path in ("bwv1.0", "bwv3.1"):  # The second cannot be read.
    (tmp_path / "corpus/bach" / f"{path}.mxl").write_text("another corpus's")
  _render(tmp_path)
  assert fake[9:] == ["bwv1.0.mxl"]
  _render(tmp_path)
  assert len(fake) == 10


@pytest.fixture
def program(tmp_path, monkeypatch, fake):
  """Writes a fluidsynth that does what a script says."""
  monkeypatch.setattr(rendering, "play", _PLAY)
  folder = tmp_path / "bin"
  folder.mkdir()
  path = f"{folder}{os.pathsep}{os.environ['PATH']}"
  monkeypatch.setenv("PATH", path)

  def write(script):
    (folder / "fluidsynth").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "fluidsynth").chmod(0o755)

  return write


@pytest.mark.parametrize(
  "script, said",
  [
    ("kill -9 $$", "fluidsynth fails: exit -9"),
    ("echo no library >&2; exit 127", "fluidsynth fails: no library"),
    (f"{_LAST}; : > $last", "fluidsynth fails: its sound cannot be kept"),
  ],
)
def test_what_fluidsynth_failed_at_is_tried_again(
  tmp_path, program, script, said
):
  wave = tmp_path / "wave.wav"
  soundfile.write(wave, np.zeros(1600), 16_000)
  good = f'{_LAST}; cp "{wave}" "$last"'
  # All but the first: one that is rendered is not rendered again.
  once = tmp_path / "once"
  program(f'if mkdir "{once}" 2>&-; then {good}; else {script}; fi')
  made = _render(tmp_path)
  failed = [path for path, one in made.items() if one["failed"]]
  assert len(failed) == 10
  whys = {made[path]["failed"] for path in failed if "bwv3" not in path}
  assert len(whys) == 1 and whys.pop().startswith(said)
  place = tmp_path / "data" / rendering.RECORD
  assert "8 of them by fluidsynth" in rendering.summary(made, place)
  program(good)
  made = _render(tmp_path)
  failed = [path for path, one in made.items() if one["failed"]]
  assert failed and all("bwv3" in path for path in failed)
  assert "by fluidsynth" not in rendering.summary(made, place)


def test_where_fluidsynth_fails_at_all_the_same_command_tries_again(
  tmp_path, program
):
  program("exit 1")
  with pytest.raises(errors.InputError, match="the same command tries again"):
    _render(tmp_path)


def test_a_process_that_is_ended_is_said_without_a_traceback():
  with pytest.raises(errors.RunError, match="the same command goes on"):
    with rendering._results(os._exit, [1, 2], 2) as results:
      list(results)


def test_scores_that_all_fail_are_an_error(tmp_path, fake, monkeypatch):
  def fail(_):
    raise score_notes.Unreadable("bad")

  monkeypatch.setattr(score_notes, "read", fail)
  with pytest.raises(errors.InputError, match="none of 11 scores .*: bad"):
    _render(tmp_path)


def test_a_missing_soundfont_or_program_is_named(tmp_path, monkeypatch):
  program = tmp_path / "fluidsynth"
  program.write_text("#!/bin/sh\n")
  program.chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path))
  font = tmp_path / "none.sf2"
  with pytest.raises(errors.InputError, match="no soundfont at .*none.sf2"):
    rendering.find_soundfont(font)
  font.write_bytes(b"half of a download")
  with pytest.raises(errors.InputError, match="none.sf2 is no soundfont"):
    rendering.find_soundfont(font)
  font.write_bytes(b"RIFF\0\1\0\0sfbkLIST")
  assert rendering.find_soundfont(font) == font
  program.unlink()
  with pytest.raises(errors.InputError, match="fluidsynth is not installed"):
    rendering.find_soundfont(font)


_NOTE = (
  "<note><pitch><step>{}</step><octave>4</octave></pitch>"
  "<duration>{}</duration>{}</note>"
)
_XML = f"""<?xml version="1.0"?><score-partwise version="3.1">
<part-list><score-part id="P1"><part-name>a</part-name></score-part></part-list>
<part id="P1"><measure number="1"><attributes><divisions>1</divisions>
<time><beats>4</beats><beat-type>4</beat-type></time></attributes>
<direction><direction-type><metronome><beat-unit>quarter</beat-unit>
<per-minute>60</per-minute></metronome></direction-type></direction>
{_NOTE.format("C", 3, "")}{_NOTE.format("D", 1, '<tie type="start"/>')}
</measure><measure number="2">{_NOTE.format("D", 1, '<tie type="stop"/>')}
{_NOTE.format("E", 3, "")}<barline location="right">
<repeat direction="backward"/></barline></measure></part></score-partwise>"""


@pytest.mark.long
def test_a_real_score_is_parsed_and_played(tmp_path):
  pytest.importorskip("music21", reason="needs the extra scores")
  if shutil.which("fluidsynth") is None:
    pytest.skip("needs fluidsynth")
  font = next((one for one in rendering.SOUNDFONTS if one.is_file()), None)
  if font is None:
    pytest.skip("needs the soundfont FluidR3_GM")
  (tmp_path / "one.xml").write_text(_XML)
  notes = score_notes.read(tmp_path / "one.xml")
  assert notes == Notes(
    [
      [
        Note(8.0 * turn + begin_s, length_s, pitch)
        for turn in range(2)
        for begin_s, length_s, pitch in ((0, 3, 60), (3, 2, 62), (5, 3, 64))
      ]
    ]
  )
  playing = orchestration.Playing("piano", [0], 1.0, 100)
  made = rendering.play(
    orchestration.midi(notes.parts, playing), font, tmp_path
  )
  samples, rate_hz = soundfile.read(made)
  assert rate_hz == 16_000 and 16 <= len(samples) / rate_hz < 22
  # The middle of the first note, C4, has its pitch.
  spectrum = np.abs(np.fft.rfft(samples[4000:12_000]))
  assert abs(2 * np.argmax(spectrum[:200]) - 262) <= 2
  (tmp_path / "bad.xml").write_text("<score")  # Ends too early.
  with pytest.raises(score_notes.Unreadable):
    score_notes.read(tmp_path / "bad.xml")


def test_a_score_whose_tags_cannot_be_written_is_tried_again(
  tmp_path, program, monkeypatch
):
  wave = tmp_path / "wave.wav"
  soundfile.write(wave, np.zeros(1600), 16_000)
  program(f'{_LAST}; cp "{wave}" "$last"')

  def full(*_):
    raise mutagen.MutagenError("No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(rendering, "_tag", full)
    with pytest.raises(errors.InputError, match="tags cannot .* tries again"):
      _render(tmp_path)
  made = _render(tmp_path)
  assert all(
    not one["failed"] for path, one in made.items() if "bwv3" not in path
  )
