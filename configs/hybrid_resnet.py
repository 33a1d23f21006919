"""Strategy Hybrid: cross-modal terms and pairs of songs together, ResNet-18.

python launch.py --config=configs/hybrid_resnet.py --workdir=runs/hybrid_resnet
python launch.py --config=configs/hybrid_resnet.py:genre+a_p --workdir=runs/h
python launch.py --config=configs/hybrid_resnet.py:smoke --workdir=runs/smoke

Arguments: PAIRS+MODES, with PAIRS of playlist, artist, genre and MODES of a_p,
  a_g, a_g_p (default playlist+a_g_p); `smoke` alone or after a comma runs it
  on a small sample, on a CPU, in seconds.
Cost: not measured on the full data set.
"""

import ml_collections

from configs import common


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """Returns the paper's values."""
  return common.hybrid("resnet", argument)
