"""Training runs in processes of their own, alone or as several ranks, which may be killed at a chosen moment.

The processes are forked from a server that has imported everything once, so that each starts in milliseconds.
"""

import os
import signal
import socket
import traceback
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from accelerate import DistributedType
from datasets import load_from_disk
from sentence_transformers import SentenceTransformer
from short_runs import arguments
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from gve import lora_config
from gve.trainers import GVETrainer

CONTEXT = get_context("forkserver")
PRELOAD = ["torch.distributed", "gve.trainers", "gve.eval", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"]
CONTEXT.set_forkserver_preload(PRELOAD)
PATIENCE = 120


@dataclass(frozen=True)
class Run:
    """One run: where it reads, where it writes, and where it dies.

    `kill` is ("step", N) at the end of step N, ("substep", N) between two batches of step N, or ("save", N) in the
    middle of writing checkpoint-N.
    """

    model: str
    tasks: str
    folder: str
    settings: dict = field(default_factory=dict)
    adapter: bool = False
    kill: tuple[str, int] | None = None
    resume: bool | str = False
    sgd: bool = False


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(TrainerCallback):
    def __init__(self, moment):
        self.moment = moment

    def on_step_end(self, args, state, control, **kwargs):
        if self.moment == ("step", state.global_step):
            die()

    def on_substep_end(self, args, state, control, **kwargs):
        if self.moment == ("substep", state.global_step + 1):
            die()


class Recorded(GVETrainer):
    """Keeps the ids of its batches, and dies in the middle of a save where it shall."""

    kill = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.batches = []

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.batches.append((self.state.global_step, inputs["task"], tuple(inputs["ids"])))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _save_rng_state(self, output_dir):
        if self.kill == ("save", self.state.global_step):
            die()
        super()._save_rng_state(output_dir)


def trainer_of(run):
    settings = {"num_train_epochs": 2, "warmup_steps": 2, "probe_pairs": 5, "save_strategy": "steps", "save_steps": 3}
    args = arguments(run.folder, **settings | run.settings)
    if args.fsdp:
        # accelerate shards on GPUs only and elsewhere runs DDP without a word; all the rest is as on GPUs
        args.distributed_state.distributed_type = DistributedType.MULTI_GPU
    model = SentenceTransformer(run.model, device="cpu", model_kwargs={"dtype": torch.float32})
    if run.adapter:
        torch.manual_seed(0)
        model.add_adapter(lora_config(r=2, lora_alpha=4, lora_dropout=0.1))
    Recorded.kill = run.kill
    options = {"optimizers": (torch.optim.SGD(model.parameters(), lr=1.0), None)} if run.sgd else {}
    return Recorded(model, args, load_from_disk(run.tasks), callbacks=[Killer(run.kill)], **options)


def train(run, report):
    trainer = trainer_of(run)
    trainer.train(resume_from_checkpoint=run.resume)
    state = trainer.accelerator.get_state_dict(trainer.model)
    found = {
        "batches": trainer.batches,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "history": trainer.curriculum.history.to_json(),
        "weights": {name: value.clone() for name, value in state.items()},
    }
    trainer.save_model(f"{run.folder}/final")
    found["sharded"] = sum(isinstance(value, DTensor) for value in trainer.model.parameters())
    torch.save(found, report)


def work(function, run, report, rank, world_size, port):
    torch.set_num_threads(1)
    if world_size > 1:
        os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
        os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(world_size))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        function(run, report)
    except BaseException:
        Path(f"{report}.error").write_text(traceback.format_exc())
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch(run, *, world_size=1, function=train):
    """Run it; the reports of its ranks, or None where it was killed."""
    reports = [Path(f"{run.folder}-{rank}.pt") for rank in range(world_size)]
    for report in reports:
        report.unlink(missing_ok=True)
        report.parent.mkdir(parents=True, exist_ok=True)
    port = free_port()
    children = [
        CONTEXT.Process(target=work, args=(function, run, str(report), rank, world_size, port))
        for rank, report in enumerate(reports)
    ]
    for child in children:
        child.start()
    killed = False
    for child in children:
        child.join(1 if killed else PATIENCE)
        killed |= child.exitcode == -signal.SIGKILL
        if child.exitcode is None:
            child.kill()
            child.join()
    if killed:
        assert run.kill, "killed, though nothing should have"
        return None
    errors = [Path(f"{report}.error") for report in reports]
    assert not any(child.exitcode for child in children), f"{[child.exitcode for child in children]}\n" + "\n".join(
        e.read_text() for e in errors if e.is_file()
    )
    return [torch.load(report, weights_only=False) for report in reports]
