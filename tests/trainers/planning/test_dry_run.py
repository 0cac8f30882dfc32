import pytest
import torch

from gve import GVEProcessor
from gve.trainers import GVETrainer
from gve.trainers.planning.dry_run import describe_run, estimate_run
from gve.trainers.planning.row_costs import HeaderPlanner, assume_columns, batch_load, measure_columns
from gve.trainers.recipe import parse
from gve.trainers.train_command import load_model

FLAGS = ["--per_device_train_batch_size", "4", "--num_negatives", '{"t2v": 1}', "--report_to", "none"]


def plan_of(tmp_path, *flags, tasks=None):
    command, args = parse([*flags, "--output", str(tmp_path), "--dry-run"])
    return estimate_run(command, args, tasks)


def test_steps_and_mixture_are_those_of_the_run(tmp_path, embedder_folder, tasks):
    flags = ["--model", str(embedder_folder), *FLAGS, "--num_train_epochs", "2", "--gradient_accumulation_steps", "2"]
    plan = plan_of(tmp_path, *flags, tasks=tasks)
    command, args = parse([*flags, "--data", "d", "--output", str(tmp_path), "--use_cpu", "--disable_tqdm", "true"])
    trainer = GVETrainer(load_model(command, seed=0), args, tasks)
    trainer.train()
    assert plan["run"]["steps"] == trainer.state.global_step == 10 == 2 * plan["run"]["steps_per_epoch"]
    mixture = [(row["task"], row["rows"], row["batch"], row["negatives"]) for row in plan["mixture"]]
    assert mixture == [("t2t", 12, 4, 0), ("t2v", 12, 4, 1), ("i2v", 12, 4, 0)]
    chances = trainer.curriculum.history.epochs[0].probabilities
    assert {row["task"]: row["probability"] for row in plan["mixture"]} == chances
    assert [entry["sigma"] for entry in plan["schedule"]] == [0.1, 1.0]
    assert plan["model"]["parameters"] == sum(value.numel() for value in trainer.model.parameters())
    assert plan["model"]["trainable"] == plan["model"]["parameters"]


def test_vision_tokens_are_exact_and_padding_is_a_bound(embedder_folder, tasks, tmp_path):
    processor = GVEProcessor.from_pretrained(embedder_folder)
    plan = plan_of(tmp_path, "--model", str(embedder_folder), *FLAGS, tasks=tasks)
    rows = {row["task"]: row for row in plan["mixture"]}
    assert rows["t2t"]["vision_tokens"] == 0
    text, image = tasks["t2v"][0], tasks["i2v"][0]
    for task, held in (("t2v", [text["target"], *text["negatives"]]), ("i2v", [image["query"], image["target"]])):
        inputs = [{kind: side[kind]["bytes"] for kind in ("image", "video") if side[kind]} for side in held]
        special = processor.tokenizer.convert_tokens_to_ids(["<|video_pad|>", "<|image_pad|>"])
        seen = torch.isin(processor.prepare(inputs)["input_ids"], torch.tensor(special)).sum()
        assert rows[task]["vision_tokens"] == 4 * seen
    assert all(row["padded_tokens"] >= row["text_tokens"] + row["vision_tokens"] for row in rows.values())
    total = sum(row["probability"] * row["vision_tokens"] for row in rows.values())
    assert plan["tokens"]["vision_a_step"] == pytest.approx(total, abs=1)


def test_nothing_but_a_shape_is_needed(tmp_path):
    plan = plan_of(tmp_path, "gve-3b", "--shape", "qwen2.5-vl-3b", "--device_tflops", "312")
    text = describe_run(plan)
    for line in ("2,568 steps: 3 epochs of 856, on 32 processes", "sigma     1: 0.10, 2: 0.55, 3: 1.00", "s a step,"):
        assert line in text
    assert ["t2i", "210,000", "32", "0"] in [line.split()[:4] for line in text.splitlines()]
    counts = {"processes": 32, "gradient_accumulation_steps": 1, "epochs": 3, "steps_per_epoch": 856, "steps": 2568}
    assert plan["run"] == counts
    assert plan["memory"]["weights"] > plan["model"]["parameters"] * 2
    assert plan["time"]["hours"] == pytest.approx(plan["time"]["seconds_a_step"] * 2568 / 3600)
    assert any("no data" in note for note in plan["notes"])
    assert plan["host"] == {"batches": 17, "bytes": 17 * plan["memory"]["inputs"]}


def test_a_shape_stands_in_for_data_of_ones_own_and_assumed_rows_are_at_their_budgets(tmp_path, tasks):
    """No processor: the paper's budgets, read from the same headers."""
    plan = plan_of(tmp_path, "--shape", "qwen2.5-vl-7b", *FLAGS, tasks=tasks)
    (video,) = (row for row in plan["mixture"] if row["task"] == "t2v")
    assert video["vision_tokens"] == 4 * 2 * 4 * 4  # rows, sides, frame pairs, a frame of 32 pixels made 56 a side
    assert plan["time"].keys() == {"tflop_a_step"}
    query, target, negative = assume_columns("ti2v-mine", 1)
    assert (query.vision, target.vision) == (256, 800) and negative == target
    _, _, shown, _ = assume_columns("ti2v-mine", 1, reference=True)
    assert (shown.vision, shown.tokens) == (256, 296)  # the picture of the query and the chat, without its text
    load = batch_load([query, target], 2)
    assert (load.vision, load.longest, load.largest) == (2112, target.longest, 2 * target.longest)


def test_too_few_rows_and_negatives_are_told(tmp_path, tasks):
    with pytest.raises(ValueError, match="tasks: got 'x2y'"):
        assume_columns("x2y", 0)
    with pytest.raises(ValueError, match="t2t, t2v, i2v has fewer rows than one step takes"):
        plan_of(tmp_path, "--shape", "qwen2.5-vl-3b", tasks=tasks)
    with pytest.raises(ValueError, match="data: got none, and t2v-mine has no number of rows"):
        plan_of(tmp_path, "--shape", "qwen2.5-vl-3b", "--tasks", "t2v-mine")
    with pytest.raises(ValueError, match="num_negatives: got 2 for t2v, whose sampled rows have 1"):
        measure_columns(tasks["t2v"], 2, HeaderPlanner())
    query, target, *negatives = measure_columns(tasks["t2t"], 2, HeaderPlanner(), mined=True)  # yet to be mined
    assert negatives == [target, target] and query is not target
    query, target, shown = measure_columns(tasks["i2v"], 0, HeaderPlanner(), reference=True)
    assert shown.vision == query.vision and shown.vision < target.vision
