"""Long jobs cut into parts: each part writes files of its own, so an interrupted job continues where it stopped."""

import multiprocessing
import signal
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Protocol

from tqdm import tqdm


class Part(Protocol):
    """A piece of work; `weight` is its share of the progress bar."""

    @property
    def weight(self) -> int: ...  # noqa: D102

    @property
    def done(self) -> bool: ...  # noqa: D102

    def write(self) -> None: ...  # noqa: D102


def write_parts(parts: Iterable[Part], *, workers: int, progress: bool, title: str, unit: str) -> None:
    """Write the parts that are not done, in this process or in several."""
    everything = list(parts)
    left = [part for part in everything if not part.done]
    total, rest = sum(part.weight for part in everything), sum(part.weight for part in left)
    with tqdm(total=total, initial=total - rest, desc=title, unit=unit, disable=not progress) as bar:
        if workers <= 1 or len(left) < 2:
            for part in left:
                part.write()
                bar.update(part.weight)
            return
        context = multiprocessing.get_context("spawn")
        # this process handles an interrupt; the workers finish their part, so that no file is half written
        ignore = (signal.SIGINT, signal.SIG_IGN)
        with ProcessPoolExecutor(workers, mp_context=context, initializer=signal.signal, initargs=ignore) as pool:
            weights = {pool.submit(part.write): part.weight for part in left}
            try:
                for future in as_completed(weights):
                    future.result()
                    bar.update(weights[future])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
