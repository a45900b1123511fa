import threading
import time

import pytest

from lkspace.data import source
from lkspace.data.source import in_order


@pytest.mark.parametrize(("size", "most"), [(source.MEMORY, 1), (source.MEMORY // 3, 3), (2 * source.MEMORY, 1)])
def test_what_is_under_way_fits_into_memory(size, most):
    lock, alive, seen = threading.Lock(), 0, []

    def work(item):
        nonlocal alive
        with lock:
            alive += 1
            seen.append(alive)
        time.sleep(0.002)
        return item

    found = []
    for item in in_order(work, range(12), size):
        found.append(item)
        with lock:
            alive -= 1
    assert found == list(range(12))
    assert max(seen) <= most
