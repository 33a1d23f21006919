"""Hybrid: cross-modal terms and pairs of songs together, ResNet-18.

python launch.py --config=configs/hybrid_resnet.py --workdir=runs/hybrid_resnet
python launch.py --config=configs/hybrid_resnet.py:genre+a_p --workdir=runs/h

Arguments: PAIRS+MODES, with PAIRS of playlist, artist, genre, album and MODES
  of a_p, a_g, a_g_p (default playlist+a_g_p); `smoke` alone or after a comma
  for a small sample of its own, on a CPU, in seconds.
"""

from configs import common


def get_config(argument: str = ""):
  return common.of_strategy("hybrid", "resnet", argument)
