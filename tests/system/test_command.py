"""Tests of the program pcl-jax: it finds each command, and configs by name."""

import pathlib
import runpy
import sys

import pytest

from pcl_jax import command
from pcl_jax.common import errors
from pcl_jax.common import programs

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch):
  """Runs a command line; returns what would be run, and with which words."""

  def run(*words: str) -> tuple[str, list[str]]:
    found = []
    monkeypatch.setattr(
      runpy, "run_module", lambda module, **_: found.extend([module, sys.argv])
    )
    monkeypatch.setattr(sys, "argv", ["pcl-jax", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(programs, "started", False)
    with pytest.raises(SystemExit) as ended:
      command.main()
    return (found[0], found[1][1:]) if found else ("", [str(ended.value.code)])

  return run


@pytest.mark.parametrize("module", programs.COMMANDS.values())
def test_each_command_is_a_module_that_can_be_run(module):
  path = ROOT / module.replace(".", "/")
  file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
  assert '__name__ == "__main__"' in file.read_text()


def test_words_behind_a_command_are_its_own(run):
  assert run("embed", "--out=a b") == ("pcl_jax.embed", ["--out=a b"])
  line = "prepare", "own_library", "--audio=x"
  assert run(*line) == ("preprocessing.own_library", ["--audio=x"])


@pytest.mark.parametrize("form", ["--config={}", "--config {}"])
def test_a_config_that_came_along_is_named_without_its_place(run, form):
  module, words = run("train", *form.format("pcl:ss_resnet:smoke").split())
  assert module == "launch"
  path = ROOT / "configs" / "ss_resnet.py"
  assert "=".join(words) == f"--config={path}:smoke"
  other = form.format("mine.py:smoke").split()
  assert run("train", *other)[1] == other


@pytest.mark.parametrize(
  "words, told",
  [
    (["trian"], "'trian' is no command"),
    (["prepare", "songs"], "'songs' makes no data set"),
    (["prepare"], "genre_vectors, melon_lmdb, own_library,"),
    (["train", "--config=pcl:ss_resnot"], "Give one of aim_resnet,"),
  ],
)
def test_a_name_that_nothing_has_is_refused_with_those_there_are(
  run, capsys, words, told
):
  assert run(*words) == ("", [str(errors.EXIT_BAD_INPUT)])
  assert told in capsys.readouterr().err


def test_a_package_that_the_base_install_lacks_is_named(run, monkeypatch):
  def lacks(name):
    def run_module(module, **_):
      raise ModuleNotFoundError("No module", name=name)

    return type("", (), {"run_module": run_module})

  monkeypatch.setattr(programs, "started", False)
  monkeypatch.setattr(command, "runpy", lacks("absent_package.part"))
  with pytest.raises(errors.InputError, match=r"absent_package.*pcl_jax\[all"):
    command._run(["train"])
  monkeypatch.setattr(command, "runpy", lacks("pcl_jax.absent"))
  with pytest.raises(ModuleNotFoundError):
    command._run(["embed"])
