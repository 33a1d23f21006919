"""H100s to compile for where there are none: what XLA needs to know."""

import jax
from jax.experimental import topologies
import numpy as np

# The facts of an H100 SXM, as its driver gives them.
_FACTS = {
  "threads_per_block_limit": 1024,
  "threads_per_warp": 32,
  "shared_memory_per_block": 49152,
  "shared_memory_per_core": 233472,
  "threads_per_core_limit": 2048,
  "core_count": 132,
  "fpus_per_core": 128,
  "block_dim_limit_x": 2147483647,
  "block_dim_limit_y": 65535,
  "block_dim_limit_z": 65535,
  "memory_bandwidth": 3352320000000,
  "l2_cache_size": 52428800,
  "clock_rate_ghz": 1.98,
  "device_memory_size": 84942979072,
  "shared_memory_per_block_optin": 232448,
  "registers_per_core_limit": 65536,
  "registers_per_block_limit": 65536,
}
# Both ask for a card to measure on.
FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"


def h100s(count: int) -> jax.sharding.Mesh:
  """Returns a mesh, `data`, of H100s that are not there.

  Raises:
    RuntimeError: jax's wheels for CUDA are not installed.
  """
  facts = " ".join(f"{name}: {value}" for name, value in _FACTS.items())
  target = (
    f"gpu_device_info {{{facts} cuda_compute_capability {{ major: 9 }} }} "
    'platform_name: "CUDA" dnn_version_info { major: 9 minor: 19 } '
    "runtime_version { major: 13 minor: 0 patch: 0 } "
    'device_description_str: "NVIDIA H100 80GB HBM3"'
  )
  topology = topologies.get_topology_desc(
    platform="cuda", target_config=target, topology=f"1x1x{count}"
  )
  auto = (jax.sharding.AxisType.Auto,)
  return jax.sharding.Mesh(
    np.array(topology.devices), ("data",), axis_types=auto
  )
