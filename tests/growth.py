"""How the work of a function grows with its input, whatever else the machine does meanwhile."""

import time
from collections.abc import Callable


def growth(work: Callable[[int], object], size: int) -> float:
    """Processor time at four times the size, by that at the size: 4 if linear, 16 if quadratic.

    Each is the least of three runs, of this thread alone.
    """

    def least(size: int) -> float:
        times = []
        for _ in range(3):
            begin = time.thread_time()
            work(size)
            times.append(time.thread_time() - begin)
        return min(times)

    return least(4 * size) / least(size)
