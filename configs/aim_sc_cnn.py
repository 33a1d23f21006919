"""Strategy A-IM: pairs of songs that share a playlist, artist or genre, SC-CNN.

python launch.py --config=configs/aim_sc_cnn.py --workdir=runs/aim_sc_cnn
python launch.py --config=configs/aim_sc_cnn.py:artist --workdir=runs/aim
python launch.py --config=configs/aim_sc_cnn.py:smoke --workdir=runs/smoke

Arguments: playlist (default), artist, genre; `smoke` alone or after a
  comma runs it on a small sample, on a CPU, in seconds.
Cost: not measured on the full data set.
"""

import ml_collections

from configs import common


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """Returns the paper's values."""
  return common.audio_intra_modal("sc_cnn", argument)
