"""Tests of pcl_jax.server.row_products."""

import concurrent.futures
import threading

import numpy as np
import pytest

from pcl_jax.server import row_products


def test_every_thread_gets_the_product_of_its_own_vector():
  rng = np.random.default_rng(0)
  rows, vectors = rng.normal(size=(300, 16)), rng.normal(size=(200, 16))
  rows, vectors = rows.astype(np.float32), vectors.astype(np.float32)
  products = row_products.RowProducts(rows)
  with concurrent.futures.ThreadPoolExecutor(100) as pool:
    found = list(pool.map(products.of, vectors))
  np.testing.assert_allclose(found, vectors @ rows.T, atol=1e-5)


class _Counted(list):
  """A list that says when something is added."""

  def __init__(self, added: threading.Semaphore):
    super().__init__()
    self._added = added

  def append(self, one):
    super().append(one)
    self._added.release()


def test_those_that_wait_are_computed_in_one_product(monkeypatch):
  products = row_products.RowProducts(np.eye(4, dtype=np.float32))
  added, free = threading.Semaphore(0), threading.Event()
  monkeypatch.setattr(products, "_waiting", _Counted(added))
  whole, computed = products._compute, []

  def compute():
    free.wait()
    computed.append(len(products._waiting))
    whole()

  monkeypatch.setattr(products, "_compute", compute)
  with concurrent.futures.ThreadPoolExecutor(9) as pool:
    found = [pool.submit(products.of, np.eye(4)[i % 4]) for i in range(9)]
    for _ in found:
      added.acquire()
    free.set()
    for i, one in enumerate(found):
      np.testing.assert_array_equal(one.result(), np.eye(4)[i % 4])
  assert computed == [9]


def test_a_product_that_fails_holds_nobody_up():
  products = row_products.RowProducts(np.eye(4, dtype=np.float32))
  with pytest.raises(ValueError):
    products.of(np.ones(3, np.float32))
  np.testing.assert_array_equal(products.of(np.ones(4, np.float32)), np.ones(4))
