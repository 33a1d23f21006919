"""A-IM: pairs of songs of one playlist, artist, genre or album, ResNet-18.

python launch.py --config=configs/aim_resnet.py --workdir=runs/aim_resnet
python launch.py --config=configs/aim_resnet.py:artist --workdir=runs/aim

Arguments: playlist (default), artist, genre, album; `smoke` alone or after a
  comma for a small sample of its own, on a CPU, in seconds.
"""

from configs import common


def get_config(argument: str = ""):
  return common.of_strategy("aim", "resnet", argument)
