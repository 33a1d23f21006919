"""Tests that a trainer survives random ends, and that its judge sees what not.

The long form is a command: python -m tests.support.chaos --kills=100.
"""

import random

import numpy as np
import pytest

from pcl_jax.checkpoint import checkpoint_files
from tests.support import chaos
from tests.support import small_state


@pytest.mark.long  # Each start is a process that trains.
@pytest.mark.parametrize(
  "kills, seed",
  [(3, 0), (30, 1)],  # Three are ended once in each way.
)
def test_a_run_killed_again_and_again_ends_bitwise_as_the_unbroken_one(
  kills, seed, tmp_path
):
  alone, other = chaos.make_trainers(tmp_path, kills)
  unbroken = chaos.run_unbroken(alone)
  said = []
  broken = chaos.run_broken(other, kills, seed, said.append)
  assert broken.steps == unbroken.steps, said
  assert broken.digest == unbroken.digest, said
  assert broken.found == broken.damaged, said
  assert broken.starts > 1 and sum(broken.ends.values()) > 0


def test_the_digest_of_a_run_sees_a_single_bit_and_row():
  arrays, rows = [np.zeros(3, np.float32)], [{"step": 1, "total": 0.5}]
  known = chaos.digest_of(arrays, rows)
  assert chaos.digest_of([np.zeros(3, np.float32)], [dict(rows[0])]) == known
  others = [
    ([np.array([0, -0.0, 0], np.float32)], rows),
    ([np.zeros(3, np.int32)], rows),
    (arrays, [{"step": 1, "total": np.nextafter(0.5, 1)}]),
    (arrays, rows * 2),
  ]
  assert known not in [chaos.digest_of(*other) for other in others]


def test_damage_leaves_a_good_step_and_is_seen(tmp_path):
  small_state.write(tmp_path, [2.0])
  files = checkpoint_files.CheckpointFiles(tmp_path)
  assert not chaos.damage(files, random.Random(0))  # It is the only one.
  small_state.write(tmp_path, [2.0, 1.0])
  assert chaos.damage(files, random.Random(0))
  assert files.fault(2) is not None and files.fault(1) is None
  assert not chaos.damage(files, random.Random(0))
