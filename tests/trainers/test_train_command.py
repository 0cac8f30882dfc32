"""The command: recipes under flags, help by heading, data by config, and short runs."""

import json
from dataclasses import fields

import pytest
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from uvrb_folder import write_uvrb

from gve.model_cards.training import read_training
from gve.trainers import GVETrainingArguments
from gve.trainers.recipe import GROUPS, TrainCommand, parse, read_recipe
from gve.trainers.train_command import load_model, load_tasks, main, make_evaluator

BASE = ["--model", "m", "--data", "d", "--use_cpu", "--bf16", "false"]
SMALL = ["tiny", "--use_cpu", "--per_device_train_batch_size", "4", "--warmup_steps", "1", "--disable_tqdm", "true"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tasks):
    folder = tmp_path_factory.mktemp("uvrd")
    lines = ["---", "configs:"]
    for task, rows in tasks.items():
        rows.to_parquet(folder / task / "train.parquet")
        lines += [f"- config_name: {task}", "  data_files:", "  - split: train", f"    path: {task}/train.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


@pytest.fixture(scope="module")
def small(folder, embedder_folder):
    return [*SMALL, "--model", str(embedder_folder), "--data", str(folder)]


def test_flags_override_the_recipe(tmp_path):
    words = [*BASE, "--output", str(tmp_path)]
    command, args = parse([*words, "--recipe", "tiny", "--schedule", "pyramid-centred"])
    assert (args.schedule, args.temperature, args.per_device_train_batch_size) == ("pyramid-centred", 0.05, 48)
    assert (command.attention, args.use_muon, args.false_negative_margin) == ("eager", True, None)
    assert args.output_dir == str(tmp_path)
    assert parse(["tiny", *words])[1].temperature == 0.05
    with pytest.raises(ValueError, match="recipe: got 'tiny' and --recipe; one recipe is accepted"):
        parse(["tiny", *words, "--recipe", "gve"])
    for text, value in (("2", 2), ('{"t2v": 1}', {"t2v": 1})):
        assert parse([*words, "--num_negatives", text])[1].num_negatives == value


def test_settings_are_nested_in_a_recipe_and_flat_ones_still_work(tmp_path, caplog):
    recipe, words = tmp_path / "own.yaml", [*BASE, "--output", str(tmp_path)]
    recipe.write_text("lora: {rank: 4}\nmining: {ceiling: null, max_rank: 9}\nvision_cache: {dir: kept, gb: 2}\n")
    command, args = parse([*words, "--recipe", str(recipe), "--mining.max_rank", "7"])
    assert (command.lora_rank, args.mine_ceiling, args.mine_max_rank) == (4, None, 7)
    assert (args.vision_cache_dir, args.vision_cache_gb) == ("kept", 2)
    assert parse([*words, "--lora.rank", "3"])[0] == parse([*words, "--lora_rank", "3"])[0]
    assert not caplog.records
    recipe.write_text("lora_rank: 4\nmine_max_rank: 9\ntemperature: 0.1\n")
    assert parse([*words, "--recipe", str(recipe)])[0].lora_rank == 4
    (record,) = caplog.records
    assert "lora_rank, mine_max_rank: these names go in the next version" in record.getMessage()
    recipe.write_text("mining: {cieling: 1}\n")
    with pytest.raises(ValueError, match=r"recipe: got mine_cieling \(nearest: mine_ceiling\)"):
        parse([*words, "--recipe", str(recipe)])


def test_help_shows_our_settings_by_heading_and_all_of_them_if_asked(capsys):
    stock = {field.name for field in fields(SentenceTransformerTrainingArguments)}
    ours = {field.name for field in (*fields(TrainCommand), *fields(GVETrainingArguments))} - stock
    listed = [name for names in GROUPS.values() for name in names.split()]
    assert len(set(listed)) == len(listed) and ours <= set(listed)
    texts = []
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as stop:
            main([flag])
        texts.append(capsys.readouterr().out)
        assert stop.value.code == 0
    short, whole = texts
    assert len(short.splitlines()) < 155 < len(whole.splitlines())
    for text in ("curriculum:\n", "--mining.max_rank", "--output", "(0.03)"):
        assert text in short and text in whole
    assert "--adam_beta1" in whole and "--adam_beta1" not in short


def test_unknown_and_missing_settings_are_named(tmp_path):
    output = ["--use_cpu", "--output", str(tmp_path)]
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text("tempature: 1\n")
    for words, message in (
        ([*BASE, "--tempature", "1"], r"arguments: got tempature \(nearest: temperature\)"),
        ([*BASE, "--learn", "1"], "arguments: got learn"),  # no abbreviation is guessed
        ([*BASE, "--lora-rnk=3"], r"got lora-rnk \(nearest: lora_rank\)"),
        ([*BASE, "tiny"], "arguments: got tiny; a recipe first"),
        ([*BASE, "--num_processes", "0"], "num_processes: got 0"),
        ([*BASE, "--recipe", str(recipe)], r"recipe: got tempature \(nearest: temperature\)"),
        (["--data", "d"], "model: got none"),
        (["--model", "m"], "data: got none; .*--dry-run"),
        (["--dry-run"], "model: got none; a dry run needs --model or --shape"),
    ):
        with pytest.raises(ValueError, match=message):
            parse([*words, *output])
    with pytest.raises(ValueError, match="recipe: got 'no'; a YAML file or one of cpu-demo, gve, gve-3b"):
        read_recipe("no")


def test_missing_data_and_recipes_for_more_devices_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for where in (tmp_path / "nowhere", tmp_path / "empty"):
        words = ["--model", "m", "--data", str(where), "--use_cpu", "--bf16", "false"]
        assert main([*words, "--output", str(tmp_path / "run")]) == 2
        assert f"gve train: data: cannot read '{where}'" in capsys.readouterr().err
    assert main(["gve-3b", "--model", "m", "--data", "d", "--use_cpu", "--output", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "the recipe is for 32 processes of 64 rows (2048 a step); this run has 1 (64 a step)" in printed
    assert "accept the smaller step with --num_processes 1" in printed


def test_a_dry_run_prints_the_plan_and_trains_nothing(small, tmp_path, capsys):
    assert main([*small, "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "1,100 steps: 5 epochs of 220" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_data_is_read_by_config(folder, tasks):
    loaded = load_tasks(str(folder))
    assert list(loaded) == ["t2t", "t2v", "i2v"]
    assert loaded["t2v"][3] == tasks["t2v"][3]  # bytes, and no decoder
    assert list(load_tasks(str(folder), ["i2v"])) == ["i2v"]
    with pytest.raises(ValueError, match="tasks: got ti2v"):
        load_tasks(str(folder), ["ti2v"])


def test_a_short_run_leaves_an_embedder(small, folder, embedder_folder, tmp_path):
    out = tmp_path / "out"
    flags = ["--output", str(out), "--max_steps", "3", "--save_strategy", "no", "--logging_steps", "1"]
    assert main([*small, *flags]) == 0
    before, after = SentenceTransformer(str(embedder_folder)), SentenceTransformer(str(out))
    assert (out / "trainer_state.json").is_file() and (out / "curves" / "tasks.png").is_file()
    assert after.encode(["a red square"]).shape == (1, 64)
    assert abs(after.encode(["a red square"]) - before.encode(["a red square"])).max() > 1e-4
    facts = read_training(out)  # all that its card needs
    assert facts.missing() == [] and facts.steps == 3 and facts.rows == {"t2t": 12, "t2v": 12, "i2v": 12}
    assert (facts.record["data"], facts.record["base_model"]) == ([folder.name], embedder_folder.name)
    assert facts.record["seconds"] > 0 and not facts.record["resumed"]


def test_freezing_and_adapters_leave_the_language_layers(embedder_folder, tmp_path):
    def trained(*more):
        words = ["--model", str(embedder_folder), "--data", "d", "--output", str(tmp_path), "--use_cpu", *more]
        model = load_model(parse(words)[0], seed=0)
        return [name for name, value in model.named_parameters() if value.requires_grad]

    names = trained("--lora_rank", "2")
    assert len(names) == 2 * 6 * 2  # two matrices on six layers of each of two blocks
    assert all("language_model.layers" in name and "lora" in name for name in names)
    names = trained("--freeze_vision")
    assert names and not [name for name in names if "visual" in name or "embed_tokens" in name]


@pytest.fixture(scope="module")
def uvrb(tmp_path_factory, tasks):
    tables = {"corpus": [], "queries": [], "qrels": []}
    for row in tasks["t2v"]:
        identity = row["id"]
        tables["corpus"].append({"id": identity, "video": row["target"]["video"]})
        tables["queries"].append({"id": identity, "text": row["query"]["text"], "image": None, "video": None})
        tables["qrels"].append({"query-id": identity, "corpus-id": identity, "score": 1})
    return write_uvrb(tmp_path_factory.mktemp("uvrb"), {"MSRVTT": tables, "DiDeMo": tables})


def test_the_benchmark_is_scored_while_training(small, uvrb, tmp_path):
    out = tmp_path / "out"
    flags = "--dtype float32 --max_steps 4 --eval_strategy steps --eval_steps 2 --save_strategy steps --save_steps 2 "
    flags += "--load_best_model_at_end true --metric_for_best_model mean --uvrb_sets msrvtt didemo --uvrb_rows 6"
    assert main([*small, "--output", str(out), "--uvrb", str(uvrb), *flags.split()]) == 0
    state = json.loads((out / "trainer_state.json").read_text())
    scored = [entry for entry in state["log_history"] if "eval_mean" in entry]
    assert [entry["step"] for entry in scored if {"eval_msrvtt", "eval_didemo"} <= entry.keys()] == [2, 4]
    assert state["best_metric"] == max(entry["eval_mean"] for entry in scored)
    assert (out / "curves" / "evaluation.png").is_file()


def test_a_benchmark_that_cannot_serve_is_refused(uvrb, tmp_path):
    best = "--eval_strategy epoch --uvrb_sets msrvtt --save_strategy epoch --load_best_model_at_end"
    for flags, message in (
        ("", "while eval_strategy is no"),
        ("--eval_strategy epoch --uvrb_sets nope", "unknown set 'nope'"),
        (best, "metric_for_best_model: got 'loss'; mean, msrvtt are measured"),
    ):
        command, args = parse([*BASE, "--output", str(tmp_path), "--uvrb", str(uvrb), *flags.split()])
        with pytest.raises(ValueError, match=message):
            make_evaluator(command, args)
