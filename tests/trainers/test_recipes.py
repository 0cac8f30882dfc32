"""Every shipped recipe and launch file is read by what will read it, and holds the paper's numbers."""

import json
from types import SimpleNamespace

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from gve.trainers.planning.dry_run import make_plan
from gve.trainers.planning.row_costs import COLLECTED, SOURCES, UVRD
from gve.trainers.recipe import RECIPES, parse, read_recipe, recipe_names

PAPER = ("gve-3b", "gve-7b", "gve-i", "gve-s", "gve")
ACCELERATE = sorted((RECIPES / "accelerate").glob("*.yaml"))
DEEPSPEED = sorted((RECIPES / "deepspeed").glob("*.json"))


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_hold_flags_only(name, tmp_path):
    command, args = parse([name, "--model", "m", "--data", "d", "--output", str(tmp_path), "--dry-run"])
    renamed = ("bf16", "report_to", "lr_scheduler_type", "save_strategy", "eval_strategy")
    for key, value in read_recipe(name).items():
        if key not in renamed:
            assert vars(command).get(key, vars(args).get(key)) == value, key


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_stands_in_its_recipes(name):
    """Sources, batch sizes and negatives of Tables 6 and 7."""
    recipe = read_recipe(name)
    assert recipe["tasks"] == {"gve-i": list(COLLECTED), "gve-s": [*COLLECTED, *UVRD], "gve": [*COLLECTED, *UVRD]}.get(
        name, list(UVRD)
    )
    for task in recipe["tasks"]:
        source = SOURCES[task]
        assert recipe["task_batch_sizes"].get(task, recipe["per_device_train_batch_size"]) == source.batch_size, task
        assert recipe["num_negatives"].get(task, 0) == source.negatives, task
        assert source.batch_size * recipe["num_processes"] >= 1024


@pytest.mark.parametrize(
    ("name", "gibibytes"),
    [("single-gpu-24gb", 23.5), ("single-gpu-80gb", 79), ("gve-3b", 79), ("gve-7b", 79)],
)
def test_recipes_fit_their_device(name, gibibytes, tmp_path):
    """With some of it left for what the formula leaves out."""
    command, args = parse([name, "--output", str(tmp_path), "--dry-run"])
    assert make_plan(command, args, None)["memory"]["total"] < 0.93 * gibibytes * 2**30


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_reads_its_files(path):
    config = load_config_from_file(str(path))
    values = yaml.safe_load(path.read_text())
    assert config.num_processes == 8
    assert config.distributed_type.value == values["distributed_type"]
    if "deepspeed_config" in values:
        name = values["deepspeed_config"]["deepspeed_config_file"]
        assert RECIPES / name.removeprefix("trainers/recipes/") in DEEPSPEED
    if "fsdp_config" in values:
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=values["fsdp_config"]["fsdp_version"],
            auto_wrap_policy=values["fsdp_config"]["fsdp_auto_wrap_policy"],
            transformer_cls_names_to_wrap=values["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(","),
            state_dict_type=values["fsdp_config"]["fsdp_state_dict_type"],
        )
        assert plugin.fsdp_version == 2


def test_the_wrapped_layers_are_those_of_the_model(embedder):
    values = yaml.safe_load((RECIPES / "accelerate" / "fsdp2.yaml").read_text())
    names = {type(module).__name__ for module in embedder.modules()}
    assert set(values["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(",")) <= names


@pytest.mark.parametrize("path", DEEPSPEED, ids=lambda path: path.stem)
def test_deepspeed_files_leave_to_the_run_what_is_the_run_s(path):
    config = HfDeepSpeedConfig(str(path))
    assert config.config["zero_optimization"]["stage"] == int(path.stem.removeprefix("zero"))
    assert config.is_zero2() is (path.stem == "zero2")
    for name in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        assert config.get_value(name) == "auto"
    assert not config.is_offload()


@pytest.mark.parametrize("path", DEEPSPEED, ids=lambda path: path.stem)
def test_deepspeed_accepts_its_files(path, tmp_path):
    """With the package: every "auto" gets the run's number, and DeepSpeed's own reader takes the result."""
    runtime = pytest.importorskip("deepspeed.runtime.config")
    integration = pytest.importorskip("transformers.integrations.deepspeed")
    _, args = parse(["gve-3b", "--model", "m", "--output", str(tmp_path), "--dry-run"])
    config = integration.HfTrainerDeepSpeedConfig(json.loads(path.read_text()))
    config.trainer_config_process(args)
    config.trainer_config_finalize(args, SimpleNamespace(config=SimpleNamespace(hidden_size=2048)), 2568)
    assert "auto" not in json.dumps(config.config)
    read = runtime.DeepSpeedConfig(config.config)
    assert read.zero_config.stage == int(path.stem.removeprefix("zero"))
    assert read.train_micro_batch_size_per_gpu == 64
