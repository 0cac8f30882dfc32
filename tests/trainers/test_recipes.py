import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from gve.trainers.planning.dry_run import estimate_run
from gve.trainers.planning.row_costs import COLLECTED, SOURCES, UVRD
from gve.trainers.recipe import RECIPES, parse, read_recipe, recipe_names

ACCELERATE = sorted((RECIPES / "accelerate").glob("*.yaml"))
DEEPSPEED = sorted((RECIPES / "deepspeed").glob("*.json"))


def test_recipes_hold_flags_only(tmp_path):
    renamed = ("bf16", "report_to", "lr_scheduler_type", "save_strategy", "eval_strategy")
    for name in recipe_names():
        command, args = parse([name, "--model", "m", "--data", "d", "--output", str(tmp_path), "--dry-run"])
        for key, value in read_recipe(name).items():
            if key not in renamed:
                assert vars(command).get(key, vars(args).get(key)) == value, (name, key)


def test_the_paper_stands_in_its_recipes():
    """Sources, batch sizes and negatives of Tables 6 and 7."""
    everything = [*COLLECTED, *UVRD]
    sources = {"gve-3b": UVRD, "gve-7b": UVRD, "gve-i": COLLECTED, "gve-s": everything, "gve": everything}
    for name, tasks in sources.items():
        recipe = read_recipe(name)
        assert recipe["tasks"] == list(tasks)
        for task in tasks:
            source, size = SOURCES[task], recipe["task_batch_sizes"].get(task, recipe["per_device_train_batch_size"])
            assert (size, recipe["num_negatives"].get(task, 0)) == (source.batch_size, source.negatives), task
            assert source.batch_size * recipe["num_processes"] >= 1024


def test_recipes_fit_their_device(tmp_path):
    """With some of it left for what the formula leaves out."""
    for name, gibibytes in {"single-gpu-24gb": 23.5, "single-gpu-80gb": 79, "gve-3b": 79, "gve-7b": 79}.items():
        command, args = parse([name, "--output", str(tmp_path), "--dry-run"])
        assert estimate_run(command, args, None)["memory"]["total"] < 0.93 * gibibytes * 2**30


def test_accelerate_reads_its_files(embedder):
    for path in ACCELERATE:
        config, values = load_config_from_file(str(path)), yaml.safe_load(path.read_text())
        assert config.num_processes == 8
        assert config.distributed_type.value == values["distributed_type"]
        if "deepspeed_config" in values:
            name = values["deepspeed_config"]["deepspeed_config_file"]
            assert RECIPES / name.removeprefix("trainers/recipes/") in DEEPSPEED
        if "fsdp_config" in values:
            settings = values["fsdp_config"]
            layers = settings["fsdp_transformer_layer_cls_to_wrap"].split(",")
            assert set(layers) <= {type(module).__name__ for module in embedder.modules()}
            names = ("fsdp_version", "auto_wrap_policy", "state_dict_type")
            options = {name: settings[f"fsdp_{name.removeprefix('fsdp_')}"] for name in names}
            plugin = FullyShardedDataParallelPlugin(transformer_cls_names_to_wrap=layers, **options)
            assert plugin.fsdp_version == 2


def test_deepspeed_files_leave_to_the_run_what_is_the_run_s():
    for path in DEEPSPEED:
        config = HfDeepSpeedConfig(str(path))
        assert config.config["zero_optimization"]["stage"] == int(path.stem.removeprefix("zero"))
        assert config.is_zero2() is (path.stem == "zero2")
        for name in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
            assert config.get_value(name) == "auto"
        assert not config.is_offload()
