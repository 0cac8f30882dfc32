"""Two processes are one with the batch of both: under DDP, and with parameters sharded by FSDP2, on gloo."""

from dataclasses import replace

import pytest
import torch
from datasets import DatasetDict
from sentence_transformers import SentenceTransformer
from short_runs import arguments
from training_runs import Run, launch

from gve.trainers.sharding import check_sharding

WRAPPED = {"version": 2, "transformer_layer_cls_to_wrap": ["Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory, embedder_folder, tasks):
    base = tmp_path_factory.mktemp("processes")
    # statements are known within a process only, so the batches of two processes and of one must have none
    plain = {"query_facts": [], "target_facts": []}
    chosen = DatasetDict({"t2v": tasks["t2v"], "i2v": tasks["i2v"]})
    chosen.map(lambda row: plain, features=tasks["t2v"].features).save_to_disk(base / "tasks")
    settings = {"gather_across_devices": True, "max_steps": 4, "save_steps": 2, "schedule": "uniform"}
    return Run(str(embedder_folder), str(base / "tasks"), str(base / "run"), settings=settings)


def named(run, name, **settings):
    return replace(run, folder=f"{run.folder}-{name}", settings=run.settings | settings)


def flat(weights):
    return torch.cat([value.flatten().double() for value in weights.values()])


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def test_the_gradient_of_two_processes_is_that_of_the_joined_batch(run):
    """A step of plain descent at a rate of 1 moves each weight by its gradient."""
    step = {"max_steps": 1, "max_grad_norm": 0.0, "warmup_steps": 0, "lr_scheduler_type": "constant", "save_steps": 9}
    (one,) = launch(replace(named(run, "sgd-one", per_device_train_batch_size=8, **step), sgd=True))
    two = launch(replace(named(run, "sgd-two", **step), sgd=True), world_size=2)
    assert sorted(one["batches"][0][2]) == sorted(two[0]["batches"][0][2] + two[1]["batches"][0][2])
    assert two[0]["losses"] == pytest.approx(one["losses"], rel=1e-6)
    before = SentenceTransformer(run.model, device="cpu").state_dict()
    expected, *gradients = (
        flat({name: found["weights"][name] for name in before}) - flat(before) for found in (one, *two)
    )
    assert expected.norm() > 1
    for gradient in gradients:
        assert (gradient - expected).norm() < 1e-6 * expected.norm()


def test_probing_is_divided_among_processes(run):
    settings = {"schedule": "pyramid", "steps_per_epoch": 1, "max_steps": -1}
    settings |= {"learning_rate": 1e-12, "save_strategy": "no"}
    (one,) = launch(named(run, "probe-one", **settings))
    two = launch(named(run, "probe-two", **settings), world_size=2)
    scores = [found["history"]["1"]["scores"] for found in (one, *two)]
    assert scores[1] == scores[2]
    for task in ("t2v", "i2v"):
        assert scores[1][task] == pytest.approx(scores[0][task], abs=1e-6)


@pytest.mark.parametrize(("state", "adapter"), [("FULL_STATE_DICT", False), ("SHARDED_STATE_DICT", True)])
def test_sharded_parameters_train_save_and_resume(run, state, adapter):
    sharded = {"fsdp": True, "fsdp_config": WRAPPED | {"state_dict_type": state}, "share_media": False}
    fsdp = replace(named(run, f"fsdp-{state}", **sharded), adapter=adapter)
    whole = launch(fsdp, world_size=2)
    assert whole[0]["sharded"] == len(whole[0]["weights"])  # every parameter is spread over the processes
    ddp = launch(replace(named(run, f"ddp-{state}"), adapter=adapter), world_size=2)
    assert whole[0]["losses"] == pytest.approx(ddp[0]["losses"], rel=1e-5)
    assert largest_difference(whole[0]["weights"], ddp[0]["weights"]) < 1e-5
    resumed = launch(replace(fsdp, resume=f"{fsdp.folder}/checkpoint-2"), world_size=2)
    assert resumed[0]["losses"] == whole[0]["losses"]
    assert largest_difference(resumed[0]["weights"], whole[0]["weights"]) == 0
    again = SentenceTransformer(f"{fsdp.folder}/final", device="cpu").state_dict()
    assert all(torch.equal(again[name], value) for name, value in whole[0]["weights"].items())


def test_sharding_that_cannot_be_had_is_refused(tmp_path):
    args = arguments(tmp_path)
    with pytest.raises(ValueError, match="share_media: got True under FSDP"):
        check_sharding(args, enabled=True)
    args.fsdp = True
    with pytest.raises(ValueError, match=r"fsdp: got True on cpu with 1 process"):
        check_sharding(args, enabled=False)
