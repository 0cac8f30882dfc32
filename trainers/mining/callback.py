"""Hard negatives in training: a version for each epoch, mined at its start (paper, section 3.3)."""

import logging
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from gve.eval.encoders import Encoder
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.collator import PairCollator
from gve.trainers.encoders import LiveEncoder, OutsideEncoder, SideEncoder
from gve.trainers.media.vision_cache import VisionCache
from gve.trainers.mining.mined import HEADER, MinedNegatives, MinedPairRows, check_version
from gve.trainers.mining.run import MiningRun
from gve.trainers.mining.targets import load_corpus
from gve.trainers.processes import agreed

logger = logging.getLogger(__name__)

FOLDER = "mined"
"""Where versions stand in the run's folder."""
_BATCH = 32


class MiningCallback(TrainerCallback, ExportableState):
    """At the start of each epoch, mines or finds its version and turns all data loading to it.

    The first epoch takes the given version, else the prober's ranking, else that of the live weights; later epochs are
    mined by the live weights if set. Checkpoints hold the versions, so a resumed epoch goes on with its own.
    """

    def __init__(
        self, args: GVETrainingArguments, datasets: Mapping[str, Dataset], prober: Encoder | None = None
    ) -> None:
        self.args, self.datasets, self.prober = args, datasets, prober
        self.counts = {task: args.negatives_of(task) for task in datasets if args.negatives_of(task)}
        self.given = None if args.mined_negatives is None else Path(args.mined_negatives)
        source = args.mine_corpus
        if self.given is not None:
            header = check_version(self.given, datasets, self.counts)
            source = source or header["corpus"]
        self.source = source
        corpora = {} if source is None else {task: load_corpus(source, task, datasets[task]) for task in self.counts}
        self.negatives = MinedNegatives(Path(args.output_dir) / FOLDER, self.counts, corpora=corpora, given=self.given)
        self.versions: dict[int, int] = {}
        self.run: MiningRun | None = None
        self.collator: PairCollator | None = None
        self.cache: VisionCache | None = None
        self.log: Callable[[dict[str, float]], None] | None = None

    def join(self, datasets: Mapping[str, Dataset], trainer: Any) -> MinedPairRows:
        """Take from a trainer what live weights and the log need, and give what its workers fetch from."""
        self.collator, self.cache, self.log = trainer.data_collator, trainer.vision_cache, trainer.log
        return MinedPairRows(datasets, self.negatives)

    def state(self) -> dict[str, Any]:
        """What goes into `trainer_state.json`."""
        versions = {str(epoch): f"{version:016x}" for epoch, version in self.versions.items()}
        return {"args": {}, "attributes": {"versions": versions}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the versions of the checkpoint that is resumed, or start with none."""
        saved = (state.stateful_callbacks or {}).get(type(self).__name__) if state.global_step else None
        found = saved["attributes"]["versions"] if saved else {}
        self.versions = {int(epoch): int(version, 16) for epoch, version in found.items()}

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Turn to the version of the epoch that begins."""
        assert model is not None and self.log is not None
        updates = -(-len(train_dataloader) // args.gradient_accumulation_steps)
        epoch = state.global_step // updates
        if epoch not in self.versions:
            self.versions[epoch] = self._version(epoch, model)
        folder = self.negatives.folder(self.versions[epoch])
        if not (folder / HEADER).is_file():
            raise ValueError(
                f"resume_from_checkpoint: the checkpoint went on with the mined negatives {str(folder)!r}, which are gone; "
                "that folder is needed; put it back, or resume from the end of an epoch"
            )
        self.negatives.use(self.versions[epoch])

    def _version(self, epoch: int, model: nn.Module) -> int:
        """The version of an epoch, mined if it must be."""
        given = self.negatives.given_version
        if given is not None and (epoch == 0 or not self.args.remine_every_epoch):
            return given
        assert self.collator is not None and self.log is not None
        run = self._opened(model)
        encode: SideEncoder
        if epoch == 0 and self.prober is not None:
            name, fingerprint = type(self.prober).__name__, _fingerprint(self.prober)
            encode = OutsideEncoder(self.prober, batch_size=_BATCH)
        else:
            name, fingerprint = "live weights", _fingerprint(model)
            encode = LiveEncoder(model, self.collator, cache=self.cache, batch_size=_BATCH)
        job = run.job(name, fingerprint, epoch)
        facts = run.mine(job, encode)
        names = ("mean_negative", "mean_positive", "short")
        self.log({f"mined_{name}/{task}": found[name] for name in names for task, found in facts.items()})
        return job.version

    def _opened(self, model: nn.Module) -> MiningRun:
        if self.run is None:
            args = self.args
            self.run = MiningRun(
                self.datasets,
                self.counts,
                args.mining_settings(),
                self.negatives.parent,
                corpora=self.negatives.corpora,
                corpus=self.source,
                rank=args.process_index,
                world_size=args.world_size,
                writes=args.should_save,
                device=args.device,
                progress=not args.disable_tqdm,
            )
        return self.run


def _fingerprint(encoder: Any) -> str:
    """A digest of an embedder's weights, over all processes where each holds a part.

    An embedder whose weights cannot be read gets a new one each time, so that nothing stale is used.
    """
    if not isinstance(encoder, nn.Module):
        return agreed(token_hex(16))
    digest, split = blake2b(digest_size=16), False
    for name, value in encoder.state_dict().items():
        if isinstance(value, DTensor):
            value, split = value.to_local(), True
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    if not split:
        return digest.hexdigest()
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, digest.hexdigest())
    return blake2b("".join(parts).encode(), digest_size=16).hexdigest()
