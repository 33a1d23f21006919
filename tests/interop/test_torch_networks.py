"""Tests that the benchmark's PyTorch networks and steps are those of here."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import train_step as benchmark  # noqa: E402
from benchmarks.parts import torch_networks  # noqa: E402
from pcl_jax.interop import torch_names  # noqa: E402
from tests.support.published import golden_weights  # noqa: E402

WIDTHS = {"resnet": 4, "sc_cnn": 8}


@pytest.fixture(params=WIDTHS)
def drawn(request):
  """A PyTorch encoder with drawn weights, those weights, and a batch."""
  name = request.param
  arrays = golden_weights.draw_narrow_state_dict(name)
  encoder = torch_networks.AudioEncoder(name, width=WIDTHS[name])
  encoder.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})
  mel = np.random.default_rng(0).standard_normal((8, 256, 48))
  return encoder, arrays, mel.astype(np.float32)


def test_both_give_the_same_projections_of_the_same_weights(drawn):
  encoder, arrays, mel = drawn
  ours = torch_names.load_encoder(arrays)
  with torch.no_grad():
    theirs = encoder.eval()(torch_networks.image_of(mel)).numpy()
  _, projection = jax.jit(lambda mel: ours(mel, training=False))(mel)
  np.testing.assert_allclose(projection, theirs, rtol=1e-4, atol=1e-4)


def test_both_steps_have_the_same_loss_and_move_the_weights_alike(drawn):
  encoder, _, mel = drawn
  theirs, ours = benchmark.both_steps(encoder, mixup=None)
  image = torch_networks.image_of(mel)
  losses = [(float(theirs(image)), float(ours(mel))) for _ in range(2)]
  for one, other in losses:
    assert one == pytest.approx(other, rel=1e-4)
  assert losses[0][0] != losses[1][0]


def test_the_careful_step_computes_the_same_loss_roughly(drawn, monkeypatch):
  encoder, _, mel = drawn
  monkeypatch.setattr(torch, "compile", lambda module: module)
  image = torch_networks.image_of(mel)
  arguments = dict(benchmark.SETTINGS, mixup=None)
  plain = torch_networks.make_step(encoder, **arguments)(image)
  careful = torch_networks.make_step(encoder, **arguments, careful=True)(image)
  assert float(careful) == pytest.approx(float(plain), rel=0.2)
