"""Tests of pcl_jax.common.programs: names of commands in texts for people."""

import pathlib
import re

import pytest

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import programs

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (
  "Make one with python -m preprocessing.melon_lmdb (Melon) or "
  "preprocessing.own_library, see /x/preprocessing.old; python launch.py "
  "--config=configs/sample.py:aim. python -m pcl_jax.data.verify lists it; "
  "a table that pcl_jax.embed wrote, by pcl_jax.embedding; the same command "
  "line of launch.py, not /x/launch.py."
)


@pytest.fixture
def without_checkout(monkeypatch):
  monkeypatch.setattr(programs, "started", True)


def test_texts_in_a_checkout_stay_as_they_are():
  assert programs.fit(TEXT) == TEXT == str(errors.InputError(TEXT))


@pytest.mark.usefixtures("without_checkout")
def test_a_wheel_names_its_own_program_in_messages():
  expected = (
    "Make one with pcl-jax prepare melon_lmdb (Melon) or "
    "pcl-jax prepare own_library, see /x/preprocessing.old; pcl-jax train "
    "--config=pcl:sample:aim. pcl-jax verify lists it; "
    "a table that pcl-jax embed wrote, by pcl_jax.embedding; the same command "
    "line of pcl-jax train, not /x/launch.py."
  )
  assert str(errors.InputError(TEXT)) == expected
  assert str(errors.RunError(TEXT)) == expected


@pytest.mark.usefixtures("without_checkout")
@pytest.mark.parametrize("module", [*programs.COMMANDS.values()][1:])
def test_help_of_a_wheel_names_no_command_of_a_checkout(module):
  path = ROOT / module.replace(".", "/")
  package = path / "__main__.py"
  text = (package if path.is_dir() else path.with_suffix(".py")).read_text()
  shown = command_line.parser(module, text).format_help()
  assert f"usage: {programs.NAME} " in shown
  found = re.findall(r"python -m (?:pcl_jax|preprocessing).*", shown)
  assert not found
