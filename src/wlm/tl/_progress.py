"""Bars of progress: what is done now, and how much time is left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from joblib import Parallel, delayed
from tqdm.auto import tqdm

from wlm._logging import logger

#: Called with the training steps made since the last call, and what they logged.
Tell = Callable[[int, Mapping[str, float]], None]


def is_shown(asked: bool | None) -> bool:  # noqa: FBT001
    """Whether bars are shown: as asked, or else if wlm says information (``wlm.settings.verbosity`` of 2 or more)."""
    return logger.isEnabledFor(logging.INFO) if asked is None else asked


@dataclass(frozen=True)
class Job:
    """A call that trains: what it is ``about``, in words, and its ``steps``; the call takes ``tell``."""

    call: Callable[..., Any]
    arguments: Sequence[Any]
    about: str
    steps: int
    keywords: Mapping[str, Any] = field(default_factory=dict)


class Progress:
    """One bar for all trainings of a call, in steps, so that the time left is known during the first of them."""

    def __init__(self, verb: str, steps: int, asked: bool | None) -> None:  # noqa: FBT001
        self.verb, self.done = verb, 0
        self.bar = tqdm(total=steps, desc=verb, unit="step", disable=not is_shown(asked))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def say(self, about: str) -> None:
        """What is done now."""
        self.bar.set_description(f"{self.verb}: {about}" if about else self.verb)

    def tell(self, steps: int, scalars: Mapping[str, float]) -> None:
        """Some steps more, fewer after a restart, and what they logged."""
        self.bar.set_postfix({k: f"{x:.3g}" for k, x in scalars.items() if k != "gradient_norm"}, refresh=False)
        self.bar.update(steps)

    def end(self, steps: int) -> None:
        """A part with so many steps has ended, also if it took fewer: it was in the cache, or was interrupted."""
        self.done += steps
        self.bar.update(self.done - self.bar.n)


def run(jobs: Sequence[Job], progress: Progress, n_jobs: int | None = None) -> Iterator[Any]:
    """The results of the jobs, in their order, with the bar going on.

    With ``n_jobs`` of 1 they follow ``joblib.parallel_config``. One by one the bar moves with every step and says what
    is fitted; side by side it moves with every job that ends and says how many have.
    """
    if Parallel(n_jobs=None if n_jobs == 1 else n_jobs).n_jobs == 1:
        yield from one_by_one(jobs, progress)
        return
    calls = (delayed(job.call)(*job.arguments, **job.keywords) for job in jobs)
    progress.say(f"0 of {len(jobs)} done")
    for k, (job, found) in enumerate(zip(jobs, _side_by_side(calls, n_jobs), strict=True)):
        progress.say(f"{k + 1} of {len(jobs)} done")
        progress.end(job.steps)
        yield found


def one_by_one(jobs: Iterable[Job], progress: Progress) -> Iterator[Any]:
    """The results of the jobs, made in this process when they are asked for."""
    for job in jobs:
        progress.say(job.about)
        found = job.call(*job.arguments, **job.keywords, tell=progress.tell)
        progress.end(job.steps)
        yield found


def _side_by_side(calls: Iterable[Any], n_jobs: int | None) -> Iterable[Any]:
    """Results as they come, in order; all at once from a backend of joblib that cannot give them earlier."""
    workers = None if n_jobs == 1 else n_jobs
    try:
        parallel = Parallel(n_jobs=workers, return_as="generator")
    except ValueError:
        parallel = Parallel(n_jobs=workers)
    return parallel(calls)
