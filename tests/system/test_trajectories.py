"""Training agrees with the published implementation, step by step."""

import pytest

from tests.support import trajectories


@pytest.mark.parametrize(
  "name", ["cm_a_p_resnet", "hybrid_playlist_g_p_sc_cnn"]
)
def test_the_first_steps_agree_with_the_published_implementation(
  name, quick_compilation
):
  trajectories.assert_agrees(name, steps=2)


@pytest.mark.long
@pytest.mark.parametrize("name", trajectories.names())
def test_a_trajectory_agrees_with_the_published_implementation(
  name, as_on_one_device
):
  trajectories.assert_agrees(name)
