"""Tests of PyTorch's names: what is told from them, and what is refused."""

from flax import nnx
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.interop import torch_names
from pcl_jax.models import audio_encoder
from pcl_jax.models import genre_encoder
from pcl_jax.models import playlist_encoder
from tests.support.published import golden_weights

MAKERS = {
  "resnet": lambda: audio_encoder.AudioEncoder("resnet", rngs=nnx.Rngs(0)),
  "sc_cnn": lambda: audio_encoder.AudioEncoder("sc_cnn", rngs=nnx.Rngs(0)),
  "cf": lambda: playlist_encoder.PlaylistEncoder(rngs=nnx.Rngs(0)),
  "genre_w2v": lambda: genre_encoder.GenreEncoder(
    np.zeros((250, 128), np.float32), rngs=nnx.Rngs(0)
  ),
}


def narrow(name="sc_cnn"):
  drawn = golden_weights.draw_narrow_state_dict(name)
  return {k: v for k, v in drawn.items() if "num_batches" not in k}


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_imported_is_exported_under_the_published_names(name):
  module = nnx.eval_shape(MAKERS[name])
  drawn = golden_weights.draw_state_dict(name)
  torch_names.load_into(module, drawn)
  exported = torch_names.state_dict(module)
  kept = {key for key in drawn if not key.endswith("num_batches_tracked")}
  assert exported.keys() == kept
  for key, array in exported.items():
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, drawn[key])


@pytest.mark.parametrize("name", ["resnet", "sc_cnn"])
def test_backbone_and_sizes_are_told_from_names_and_shapes(name):
  arrays = narrow(name)
  arrays["fc_audio.fc.0.weight"] = arrays["fc_audio.fc.0.weight"][:7]
  arrays["fc_audio.fc.0.bias"] = arrays["fc_audio.fc.0.bias"][:7]
  arrays["fc_audio.fc.3.weight"] = arrays["fc_audio.fc.3.weight"][:3, :7]
  arrays["fc_audio.fc.3.bias"] = arrays["fc_audio.fc.3.bias"][:3]
  loaded = torch_names.load_encoder(arrays)
  assert isinstance(loaded.backbone, audio_encoder.BACKBONES[name])
  assert loaded.backbone.features == 64
  for key, array in torch_names.state_dict(loaded).items():
    np.testing.assert_array_equal(array, arrays[key])


def test_all_that_does_not_fit_is_said_at_once():
  arrays = narrow()
  del arrays["fc_audio.fc.3.bias"]
  arrays["audio_encoder.audio_backbone.8.conv.bias"] = np.zeros(2)
  first = "audio_encoder.audio_backbone.1.conv.bias"
  arrays[first] = np.zeros((8, 1))
  with pytest.raises(errors.InputError) as caught:
    torch_names.load_encoder(arrays)
  message = str(caught.value)
  assert "fc_audio.fc.3.bias is missing" in message
  assert "audio_backbone.8.conv.bias is unknown" in message
  assert f"{first} has shape (8, 1), the network (8,)" in message


def test_weights_that_do_not_fit_leave_the_module_as_it_was():
  arrays = narrow()
  encoder = torch_names.load_encoder(arrays)
  wrong = {key: array + 1 for key, array in arrays.items()}
  del wrong["fc_audio.fc.3.bias"]
  with pytest.raises(errors.InputError, match="missing"):
    torch_names.load_into(encoder, wrong)
  for key, array in torch_names.state_dict(encoder).items():
    np.testing.assert_array_equal(array, arrays[key])


def test_arrays_that_are_no_numbers_are_refused():
  arrays = narrow()
  arrays["fc_audio.fc.3.bias"] = np.array(["a"] * 128)
  with pytest.raises(errors.InputError, match="fc.3.bias holds <U1"):
    torch_names.load_encoder(arrays)


def test_names_of_no_audio_encoder_are_refused_with_what_was_looked_for():
  with pytest.raises(errors.InputError, match="resnet_model.*found fc.0.bias"):
    torch_names.load_encoder({"fc.0.bias": np.zeros(3)})
  with pytest.raises(errors.InputError, match="found no names at all"):
    torch_names.load_encoder({})


def test_a_backbone_without_its_first_layer_is_refused_by_name():
  arrays = narrow()
  first = "audio_encoder.audio_backbone.1.conv.weight"
  arrays.pop(first)
  with pytest.raises(errors.InputError, match=f"{first} is missing"):
    torch_names.load_encoder(arrays)
