"""Tests of packages that the base install leaves out: said before the work."""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from pcl_jax.common import errors
from pcl_jax.common import versions
from pcl_jax.evaluation.robustness import command as robustness
from preprocessing import free_music
from preprocessing import rendered_scores
from preprocessing import sample_data
from preprocessing.free_packages import music_tree
from preprocessing.library import decoding
from preprocessing.library import library_build
from preprocessing.sample import sample_maker
from preprocessing.scores import rendering
from preprocessing.scores import score_choice

ROOT = pathlib.Path(__file__).parents[2]
# What only the extra `all` has, made impossible to import.
_IMPORT = """
import importlib, sys
absent = "ml_collections tensorboardX gensim iterstrat sklearn"
absent += " tensorflow_datasets matplotlib"
sys.modules.update(dict.fromkeys(absent.split()))
for name in sys.argv[1:]:
  importlib.import_module(name)
"""


@pytest.fixture
def base_install(monkeypatch):
  """Makes what divides songs and makes vectors impossible to import."""
  for name in ("iterstrat", "gensim"):
    monkeypatch.setitem(sys.modules, name, None)


def _worked(*_, **__):
  raise AssertionError("the work was begun")


def test_the_version_of_an_absent_package_is_none():
  found = versions.installed("numpy", "absent-package")
  assert found["numpy"] and found["absent-package"] is None


def test_commands_that_need_no_training_start_without_its_packages():
  names = "pcl_jax.report", "pcl_jax.evaluate", "preprocessing.own_library"
  done = subprocess.run(
    [sys.executable, "-c", _IMPORT, *names],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr


def test_a_library_is_not_decoded_where_it_cannot_be_split(
  tmp_path, monkeypatch, base_install
):
  monkeypatch.setattr(decoding, "decode", _worked)
  with pytest.raises(errors.InputError, match=r"iterstrat and gensim.*\[all\]"):
    library_build.build_library(tmp_path, tmp_path / "data")
  assert not (tmp_path / "data").exists()


def test_scores_are_not_rendered_where_they_cannot_be_split(
  tmp_path, monkeypatch, base_install
):
  monkeypatch.setattr(score_choice, "corpus_folder", lambda: tmp_path)
  monkeypatch.setattr(rendering, "find_soundfont", lambda path: path)
  monkeypatch.setattr(rendering, "render_all", _worked)
  (tmp_path / "bach").mkdir()
  (tmp_path / "bach" / "a.mxl").touch()
  with pytest.raises(errors.InputError, match="iterstrat and gensim"):
    rendered_scores.main([f"--out={tmp_path / 'data'}"])


def test_packages_are_not_downloaded_where_they_cannot_be_split(
  tmp_path, monkeypatch, base_install
):
  monkeypatch.setattr(music_tree, "gather", _worked)
  with pytest.raises(errors.InputError, match="iterstrat and gensim"):
    free_music.main([f"--out={tmp_path / 'data'}"])


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_sample_is_not_synthesised_where_it_cannot_be_split(
  tmp_path, monkeypatch, base_install, is_begun
):
  monkeypatch.setattr(sample_maker, "make_sample", _worked)
  if is_begun:
    record = tmp_path / "data" / sample_data.MELON_FOLDER / "sample_melon.json"
    record.parent.mkdir(parents=True)
    settings = {"version": sample_maker.SAMPLE_VERSION}
    record.write_text(json.dumps({"settings": settings}))
  with pytest.raises(errors.InputError, match="iterstrat and gensim"):
    sample_data.make(tmp_path / "data", songs=20, seconds=2.0)


@pytest.mark.parametrize("absent", ["iterstrat", "matplotlib"])
def test_recordings_are_not_changed_where_nothing_can_be_measured(
  tmp_path, monkeypatch, absent
):
  monkeypatch.setitem(sys.modules, absent, None)
  monkeypatch.setattr(robustness, "measure", _worked)
  song = tmp_path / "a.wav"
  song.touch()
  with pytest.raises(errors.InputError, match=absent):
    robustness.main(
      [f"--workdir={tmp_path}", f"--audio={song}", "--plot=a.png"]
    )


def _names(extra: str) -> set[str]:
  """Returns the packages of an extra, those of the extras that it names too."""
  text = (ROOT / "pyproject.toml").read_text()
  found = set()
  for one in tomllib.loads(text)["project"]["optional-dependencies"][extra]:
    own = re.fullmatch(r"pcl_jax\[(\w+)\]", one)
    found |= _names(own[1]) if own else {re.split(r"[\[<>=]", one)[0]}
  return found


def test_the_extra_of_scores_has_what_makes_a_data_set_of_them():
  needed = {"music21", "iterative-stratification", "gensim"}
  assert needed <= _names("scores")
