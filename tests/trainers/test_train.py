"""The command: recipes under flags, data by config, and one short run."""

import pytest
from datasets import load_dataset
from sentence_transformers import SentenceTransformer

from gve.trainers.train import RECIPES, load_model, load_tasks, main, parse, read_recipe

BASE = ["--model", "m", "--data", "d", "--use_cpu", "--bf16", "false"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tasks):
    folder = tmp_path_factory.mktemp("uvrd")
    lines = ["---", "configs:"]
    for task, rows in tasks.items():
        rows.to_parquet(folder / task / "train.parquet")
        lines += [f"- config_name: {task}", "  data_files:", "  - split: train", f"    path: {task}/train.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


def test_flags_stand_above_the_recipe(tmp_path):
    command, args = parse([*BASE, "--recipe", "tiny", "--output", str(tmp_path), "--schedule", "pyramid-centred"])
    assert (args.schedule, args.temperature, args.per_device_train_batch_size) == ("pyramid-centred", 0.05, 48)
    assert (command.attention, args.use_muon, args.false_negative_margin) == ("eager", True, None)
    assert args.output_dir == str(tmp_path)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_recipes_hold_flags_only(name, tmp_path):
    command, args = parse([*BASE, "--recipe", name, "--output_dir", str(tmp_path)])
    for key, value in read_recipe(name).items():
        if key not in ("bf16", "report_to", "lr_scheduler_type", "save_strategy"):
            assert vars(command).get(key, vars(args).get(key)) == value, key


def test_the_paper_stands_in_its_recipe():
    recipe = read_recipe("gve")
    assert (recipe["lora_rank"], recipe["lora_alpha"], recipe["lora_dropout"]) == (16, 32, 0.1)
    assert (recipe["temperature"], recipe["learning_rate"], recipe["num_train_epochs"]) == (0.03, 3e-5, 3)


def test_unknown_recipes_and_settings_are_named(tmp_path):
    with pytest.raises(ValueError, match="recipe: got 'no'; a YAML file or one of gve, tiny"):
        read_recipe("no")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("tempature: 1\n")
    with pytest.raises(ValueError, match="recipe: got tempature"):
        parse([*BASE, "--recipe", str(wrong)])


def test_data_is_read_by_config(folder, tasks):
    loaded = load_tasks(str(folder))
    assert list(loaded) == ["t2t", "t2v", "i2v"]
    assert loaded["t2v"][3] == tasks["t2v"][3]
    assert list(load_tasks(str(folder), ["i2v"])) == ["i2v"]
    with pytest.raises(ValueError, match="tasks: got ti2v"):
        load_tasks(str(folder), ["ti2v"])


def test_a_short_run_leaves_an_embedder(folder, embedder_folder, tmp_path):
    flags = ["--model", str(embedder_folder), "--data", str(folder), "--output", str(tmp_path / "out")]
    flags += ["--recipe", "tiny", "--max_steps", "3", "--per_device_train_batch_size", "4", "--save_strategy", "no"]
    assert main([*flags, "--use_cpu", "--warmup_steps", "1", "--disable_tqdm", "true"]) == 0
    before, after = SentenceTransformer(str(embedder_folder)), SentenceTransformer(str(tmp_path / "out"))
    words = ["a red square"]
    assert after.encode(words).shape == (1, 64)
    assert abs(after.encode(words) - before.encode(words)).max() > 1e-4


def test_freezing_and_adapters_leave_the_language_layers(embedder_folder, tmp_path):
    flags = ["--model", str(embedder_folder), "--data", "d", "--output", str(tmp_path), "--use_cpu"]
    command, _ = parse([*flags, "--lora_rank", "2"])
    names = [name for name, value in load_model(command, seed=0).named_parameters() if value.requires_grad]
    assert len(names) == 2 * 6 * 2  # two matrices on six layers of each of two blocks
    assert all("language_model.layers" in name and "lora" in name for name in names)
    command, _ = parse([*flags, "--freeze_vision"])
    names = [name for name, value in load_model(command, seed=0).named_parameters() if value.requires_grad]
    assert names
    assert not [name for name in names if "visual" in name or "embed_tokens" in name]


def test_the_data_set_needs_no_decoder(folder):
    row = load_dataset(str(folder), "t2v", split="train")[0]
    assert isinstance(row["target"]["video"]["bytes"], bytes)
