"""The command: recipes under flags, data by config, and one short run."""

import json

import pytest
from datasets import load_dataset
from sentence_transformers import SentenceTransformer
from uvrb_folder import write_uvrb

from gve.model_cards.training import read_training
from gve.trainers.recipe import parse, read_recipe
from gve.trainers.train import load_model, load_tasks, main, make_evaluator

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


def test_a_recipe_is_the_first_word(tmp_path):
    words = [*BASE, "--output", str(tmp_path)]
    assert parse(["tiny", *words])[1].temperature == parse([*words, "--recipe", "tiny"])[1].temperature == 0.05
    with pytest.raises(ValueError, match="recipe: got 'tiny' and --recipe; one recipe is accepted"):
        parse(["tiny", *words, "--recipe", "gve"])


@pytest.mark.parametrize(("text", "value"), [("2", 2), ('{"t2v": 1}', {"t2v": 1})])
def test_negatives_are_a_number_or_a_mapping(text, value, tmp_path):
    assert parse([*BASE, "--output", str(tmp_path), "--num_negatives", text])[1].num_negatives == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tempature", "1"], r"arguments: got tempature \(nearest: temperature\)"),
        (["--learn", "1"], "arguments: got learn"),  # no abbreviation is guessed
        (["--lora-rnk=3"], r"got lora-rnk \(nearest: lora_rank\)"),
        (["tiny"], "arguments: got tiny; a recipe first"),
        (["--utilisation", "0"], "utilisation: got 0.0"),
        (["--num_processes", "0"], "num_processes: got 0"),
    ],
)
def test_unknown_flags_are_refused_with_the_nearest(words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        parse([*BASE, "--output", str(tmp_path), *words])


def test_model_and_data_are_asked_for(tmp_path):
    for words, message in (
        (["--data", "d"], "model: got none"),
        (["--model", "m"], "data: got none; .*--dry-run"),
        (["--dry-run"], "model: got none; a dry run needs --model or --shape"),
    ):
        with pytest.raises(ValueError, match=message):
            parse([*words, "--use_cpu", "--output", str(tmp_path)])


def test_data_that_are_not_there_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for where in (tmp_path / "nowhere", tmp_path / "empty"):
        words = [
            "--model",
            "m",
            "--data",
            str(where),
            "--use_cpu",
            "--bf16",
            "false",
            "--output",
            str(tmp_path / "run"),
        ]
        assert main(words) == 2
        assert f"gve train: data: cannot read '{where}'" in capsys.readouterr().err


def test_a_recipe_for_more_devices_is_refused_with_the_numbers(tmp_path, capsys):
    words = ["--model", "m", "--data", "d", "--use_cpu", "--output", str(tmp_path)]
    assert main(["gve-3b", *words]) == 2
    told = capsys.readouterr().err
    assert "the recipe is for 32 processes of 64 rows (2048 a step); this run has 1 (64 a step)" in told
    assert "accept the smaller step with --num_processes 1" in told


def test_a_dry_run_prints_the_plan_and_trains_nothing(folder, embedder_folder, tmp_path, capsys):
    words = ["tiny", "--data", str(folder), "--output", str(tmp_path / "out"), "--per_device_train_batch_size", "4"]
    assert main([*words, "--model", str(embedder_folder), "--dry-run"]) == 0
    assert "1,100 steps: 5 epochs of 220" in capsys.readouterr().out
    assert main([*words, "--shape", "qwen2.5-vl-3b", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["model"]["parameters"] == 3_754_622_976
    assert [row["rows"] for row in plan["mixture"]] == [12, 12, 12]
    assert not (tmp_path / "out").exists()


def test_unknown_recipes_and_settings_are_named(tmp_path):
    with pytest.raises(ValueError, match="recipe: got 'no'; a YAML file or one of cpu-demo, gve, gve-3b"):
        read_recipe("no")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("tempature: 1\n")
    with pytest.raises(ValueError, match=r"recipe: got tempature \(nearest: temperature\)"):
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
    flags += [
        "--recipe",
        "tiny",
        "--max_steps",
        "3",
        "--per_device_train_batch_size",
        "4",
        "--save_strategy",
        "no",
        "--logging_steps",
        "1",
    ]
    assert main([*flags, "--use_cpu", "--warmup_steps", "1", "--disable_tqdm", "true"]) == 0
    before, after = SentenceTransformer(str(embedder_folder)), SentenceTransformer(str(tmp_path / "out"))
    words = ["a red square"]
    assert (tmp_path / "out" / "trainer_state.json").is_file()
    assert (tmp_path / "out" / "curves" / "tasks.png").is_file()
    assert after.encode(words).shape == (1, 64)
    assert abs(after.encode(words) - before.encode(words)).max() > 1e-4
    facts = read_training(tmp_path / "out")  # all that its card needs
    assert facts.missing() == [] and facts.steps == 3 and facts.rows == {"t2t": 12, "t2v": 12, "i2v": 12}
    record = facts.record
    assert record["data"] == [folder.name] and record["base_model"] == embedder_folder.name
    assert record["seconds"] > 0 and not record["resumed"] and record["device"].startswith("CPU (")


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


@pytest.fixture(scope="module")
def uvrb(tmp_path_factory, tasks):
    """Two sets of real clips."""
    tables = {"corpus": [], "queries": [], "qrels": []}
    for row in tasks["t2v"]:
        identity = row["id"]
        tables["corpus"].append({"id": identity, "video": row["target"]["video"]})
        tables["queries"].append({"id": identity, "text": row["query"]["text"], "image": None, "video": None})
        tables["qrels"].append({"query-id": identity, "corpus-id": identity, "score": 1})
    return write_uvrb(tmp_path_factory.mktemp("uvrb"), {"MSRVTT": tables, "DiDeMo": tables})


def test_the_benchmark_is_scored_while_training(folder, uvrb, embedder_folder, tmp_path):
    out = tmp_path / "out"
    flags = ["tiny", "--model", str(embedder_folder), "--data", str(folder), "--output", str(out), "--use_cpu"]
    flags += [
        "--per_device_train_batch_size",
        "4",
        "--warmup_steps",
        "1",
        "--disable_tqdm",
        "true",
        "--dtype",
        "float32",
    ]
    flags += ["--max_steps", "4", "--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "steps"]
    flags += ["--save_steps", "2", "--load_best_model_at_end", "true", "--metric_for_best_model", "mean"]
    assert main([*flags, "--uvrb", str(uvrb), "--uvrb_sets", "msrvtt", "didemo", "--uvrb_rows", "6"]) == 0
    state = json.loads((out / "trainer_state.json").read_text())
    scored = [entry for entry in state["log_history"] if "eval_mean" in entry]
    assert [entry["step"] for entry in scored] == [2, 4]
    assert all({"eval_msrvtt", "eval_didemo"} <= entry.keys() for entry in scored)
    assert state["best_metric"] == max(entry["eval_mean"] for entry in scored)
    assert (out / "curves" / "evaluation.png").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "while eval_strategy is no"),
        (["--eval_strategy", "epoch", "--uvrb_sets", "nope"], "unknown set 'nope'"),
        (
            [
                "--eval_strategy",
                "epoch",
                "--uvrb_sets",
                "msrvtt",
                "--save_strategy",
                "epoch",
                "--load_best_model_at_end",
            ],
            "metric_for_best_model: got 'loss'; mean, msrvtt are measured",
        ),
    ],
)
def test_a_benchmark_that_cannot_serve_is_refused(flags, message, uvrb, tmp_path):
    command, args = parse([*BASE, "--output", str(tmp_path), "--uvrb", str(uvrb), *flags])
    with pytest.raises(ValueError, match=message):
        make_evaluator(command, args)
