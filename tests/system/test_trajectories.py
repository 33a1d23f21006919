"""Training agrees with the published implementation, step by step."""

import pytest

from tests.support.published import trajectories

SHORT = "hybrid_playlist_g_p_sc_cnn"  # It has all kinds of terms.


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[] if name == SHORT else pytest.mark.long)
    for name in trajectories.names()
  ],
)
def test_terms_before_the_first_update_are_the_published_ones(
  name, quick_compilation
):
  """Gradients and updates have oracles in the tests of their rooms."""
  trajectories.assert_agrees_before_training(name)


@pytest.mark.long
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
