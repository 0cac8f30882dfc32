"""Checkpoints that are whole or absent: written under another name, then renamed."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, rotate_checkpoints

from gve.sentence_gve import write_json
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.resume.guard import RUN_FILE

STAGE = "saving"
"""The folder of a run in which a checkpoint stays until it is whole; no resume looks into it."""

REPLACED = "replaced"
"""Beside it there, a checkpoint of the same step that gives way."""


class CheckpointStage:
    """Where a checkpoint is written until every process is done; the next run removes what a killed one left."""

    def __init__(self, args: GVETrainingArguments, accelerator: Accelerator) -> None:
        self.args, self.accelerator = args, accelerator
        self.is_open = False

    def clear(self, run: Path) -> None:
        """Remove what a killed run left behind, on every machine."""
        if self.args.local_process_index == 0:
            shutil.rmtree(run / STAGE, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def write(self, run: Path, state: TrainerState, facts: Mapping[str, Any], save: Callable[[], None]) -> Path:
        """Write a checkpoint whole or not at all, and then remove those beyond `save_total_limit`."""
        final = run / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        with self.open(run) as stage:
            save()
            ready = stage / final.name
            if self.args.should_save:
                if state.best_model_checkpoint == str(ready):
                    state.best_model_checkpoint = str(final)
                state.save_to_json(str(ready / TRAINER_STATE_NAME))
                write_json(ready / RUN_FILE, facts)
        if self.args.should_save:
            rotate_checkpoints(str(run), self.args.save_total_limit, state.best_model_checkpoint, use_mtime=True)
        return final

    @contextmanager
    def open(self, run: Path) -> Iterator[Path]:
        """Let a checkpoint be written; whatever is in the stage at the end becomes a checkpoint of the run."""
        self.clear(run)
        self.is_open = True
        try:
            yield run / STAGE
            self.accelerator.wait_for_everyone()
            self._publish(run)
        finally:
            self.is_open = False

    def _publish(self, run: Path) -> None:
        if self.args.process_index == 0:
            publish(run)
        self.accelerator.wait_for_everyone()
        if self.args.local_process_index == 0:  # finds its part there only where machines do not share the folder
            publish(run)
        self.accelerator.wait_for_everyone()


def publish(run: Path) -> None:
    """Rename what lies in the stage to where checkpoints are looked for."""
    stage = run / STAGE
    for ready in sorted(stage.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        final = run / ready.name
        if final.exists():  # saved again by a run that was resumed from before this step
            final.rename(stage / REPLACED)
        ready.rename(final)
    shutil.rmtree(stage, ignore_errors=True)


def find_checkpoint(resume: str | bool | None, run: str) -> Path | None:
    """The checkpoint to continue from: a folder, the last one of the run for True, None for False or None."""
    if resume is None or resume is False:
        return None
    if resume is True:
        last = get_last_checkpoint(run) if Path(run).is_dir() else None
        if last is None:
            raise ValueError(
                f"resume_from_checkpoint: got True, and {run} has no checkpoint-N; a run that saved one is accepted; "
                "begin anew, or name the folder of the checkpoint"
            )
        return Path(last)
    if not Path(resume).is_dir():
        raise ValueError(
            f"resume_from_checkpoint: got {resume!r}, which is not a folder; a checkpoint-N folder or True is accepted; "
            "check the path"
        )
    return Path(resume)
