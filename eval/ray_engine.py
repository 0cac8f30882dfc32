"""Shards of vectors made on a Ray cluster: the same function as on one machine, so the same bytes.

The input files, the model and the folder of shards must be at the same path on every machine.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tqdm import tqdm

from gve.eval.embed_store import ShardJob
from gve.eval.files import embed_shard
from gve.eval.models import load_encoder, set_up_encoder

logger = logging.getLogger(__name__)

TRIES = 3
"""How often a shard is tried on machines that die."""


def embed_on_ray(jobs: Sequence[ShardJob], options: Mapping[str, Any], *, address: str | None = None) -> None:
    """Make shards on a cluster, one worker a GPU, or where there is none, one for every so many processors.

    Args:
        jobs: The shards, of one model.
        options: As for `set_up_encoder`.
        address: Of the cluster; None starts one on this machine, and ends it afterwards.

    Raises:
        ImportError: When Ray is not installed.
        ValueError: When the model cannot be loaded.
    """
    if not jobs:
        return
    ray = _import_ray()
    started = not ray.is_initialized()
    if started:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    try:
        _run(ray, jobs, options)
    finally:
        if started:
            ray.shutdown()


def _run(ray: ModuleType, jobs: Sequence[ShardJob], options: Mapping[str, Any]) -> None:
    threads = torch.get_num_threads()  # sums are split by threads: as many as here give the bytes that they give here
    total = ray.cluster_resources()
    if gpus := int(total.get("GPU", 0)):
        count, share = gpus, {"num_gpus": 1}
    else:
        threads = max(1, min(threads, int(total["CPU"])))
        count, share = max(1, int(total["CPU"]) // threads), {"num_cpus": threads}
    environment = {"env_vars": {"OMP_NUM_THREADS": str(threads)}}
    worker = ray.remote(max_restarts=TRIES, max_task_retries=TRIES, runtime_env=environment, **share)(_Worker)
    workers = [worker.remote(jobs[0].model, dict(options), threads, Path.cwd()) for _ in range(min(count, len(jobs)))]
    try:
        ray.get([one.ready.remote() for one in workers])
        waiting = list(reversed(jobs))
        running = {one.embed.remote(waiting.pop()): one for one in workers}
        with tqdm(total=len(jobs), desc="Shards", unit="shard", delay=2) as bar:
            while running:
                (done,), _ = ray.wait(list(running))
                one = running.pop(done)
                for path, reason in ray.get(done).items():
                    logger.warning("skipped %s: %s", path, reason)
                bar.update()
                if waiting:
                    running[one.embed.remote(waiting.pop())] = one
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
    finally:
        for one in workers:
            ray.kill(one)


class _Worker:
    """A model on some machine of the cluster."""

    def __init__(self, model: str, options: dict[str, Any], threads: int, folder: Path) -> None:
        os.chdir(folder)  # paths may be relative, and are kept as they are
        torch.set_num_threads(threads)
        try:
            self.encoder, self.problem = load_encoder(model), None
            set_up_encoder(self.encoder, **options)
        except ValueError as error:  # an actor that fails to be made is made again and again
            self.problem = error

    def ready(self) -> None:
        """Tell whether the model could be loaded.

        Raises:
            ValueError: When it could not.
        """
        if self.problem is not None:
            raise self.problem

    def embed(self, job: ShardJob) -> dict[str, str]:
        """Make a shard.

        Args:
            job: Which.

        Returns:
            The reason by path of each file left out.
        """
        return embed_shard(self.encoder, job, progress=False).skipped


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise ImportError("--engine ray needs Ray: pip install 'gve[ray]'") from error
    return ray
