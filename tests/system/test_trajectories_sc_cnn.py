"""Training of a SC-CNN agrees with the published implementation."""

import pytest

from tests.support import trajectories

pytestmark = pytest.mark.usefixtures("as_on_one_device")


@pytest.mark.parametrize("name", trajectories.names("sc_cnn"))
def test_a_trajectory_agrees_with_the_published_implementation(name):
  trajectories.assert_agrees(name)
