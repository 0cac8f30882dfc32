"""`tests/bench/gpu.py` runs from end to end on the CPU, so that it runs unattended where a device is."""

import importlib
import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parent / "bench"
PARTS = ("env", "parity", "forward", "compiled", "mixed", "files", "nvdec", "training", "profile", "larger", "lessons")


def run_bench(*options):
    command = [sys.executable, str(BENCH / "gpu.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All parts in tiny shapes: the output, and the folder with the results."""
    out = tmp_path_factory.mktemp("gpu")
    done = run_bench("--tiny", "--out", str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, out


def test_two_parts_make_a_table(tmp_path):
    done = run_bench("--tiny", "--parts", "env,mixed", "--out", str(tmp_path))
    assert done.returncode == 0 and "| mixed | " in done.stdout and "cut" not in done.stdout
    assert done.stdout.endswith((tmp_path / "gpu.md").read_text())


@pytest.mark.slow
def test_the_table_names_every_part(whole):
    stdout, out = whole
    rows = [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(row["part"] for row in rows)) == list(PARTS)
    assert [row for row in rows if "failed" in row or "cut" in row] == []
    table = (out / "gpu.md").read_text()
    assert table in stdout and table.startswith("CPU, ") and "; torch 2." in table
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    for row in rows:
        assert any(line.startswith(f"| {row['part']} | {row['way']} |") for line in lines)
    assert all(len(row["kernels"]) > 4 for row in rows if row["way"].startswith("profile"))


@pytest.mark.slow
def test_vectors_and_losses_agree_between_the_ways(whole):
    rows = [json.loads(line) for line in (whole[1] / "gpu.jsonl").read_text().splitlines()]
    for row in rows:
        assert row.get("least cosine to ours", 1) > 0.9 and row.get("least cosine", 1) > 0.999
    ours, *others = (row["losses"] for row in rows if row["part"] == "training")
    assert len(ours) == 4 and len(others) == 4
    for losses in others:
        assert losses == pytest.approx(ours, abs=0.05)


@pytest.mark.slow
def test_lessons_that_break_say_whose_gradients_and_what_other_kernels_make_of_them(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCH))
    lessons, setting = (importlib.import_module(f"gpu_parts.{name}") for name in ("lessons", "setting"))
    row = lessons.learn(setting.Setting(tmp_path, tiny=True, started=0.0), "sdpa", 1e36, 4)
    assert row["lessons"] == 1 and row["not finite"][0].startswith("heads.")  # the weights, which the first step broke
    assert row["by eager"] == row["by gve_varlen"] == "loss nan, not all gradients finite"


def test_rounded_products_are_those_of_a_cpu_in_bf16(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    mode = importlib.import_module("gpu_parts.lessons").RoundedProducts

    def work(*, rounded):
        torch.manual_seed(0)
        rows = torch.randn(2, 4, 16, 32, dtype=torch.bfloat16, requires_grad=True)
        layer = torch.nn.Linear(32, 32, dtype=torch.bfloat16)
        with mode() if rounded else nullcontext():
            made = torch.nn.functional.scaled_dot_product_attention(layer(rows), rows, rows, is_causal=True)
            (made @ made.transpose(2, 3)).float().square().sum().backward()
        return made.detach(), rows.grad, layer.weight.grad

    for ours, theirs in zip(work(rounded=True), work(rounded=False), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - theirs).float().norm() < 0.02 * theirs.float().norm()


def test_a_part_ends_with_its_time(tmp_path):
    """What was measured before stays, and parts without time are named."""
    done = run_bench("--tiny", "--parts", "env,training,larger", "--minutes", "0.1", "--out", str(tmp_path))
    assert done.returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert {row["part"] for row in rows} == {"env", "training", "larger"}
    assert any("cut" in row or "skipped" in row for row in rows) and "| larger |" in done.stdout


def test_a_signal_ends_what_asks_for_no_deadline(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    limits = importlib.import_module("gpu_parts.limits")
    monkeypatch.setattr(limits, "GRACE", 0.1)
    deadline, start = limits.Deadline(), time.monotonic()
    with pytest.raises(limits.OverrunError, match="cut by a signal"), deadline.limit(0.05):
        time.sleep(30)
    assert time.monotonic() - start < 10 and not deadline.over


def test_without_a_device_it_says_so_and_unknown_parts_are_refused():
    import torch

    done = run_bench("--parts", "forwards")
    assert done.returncode == 2 and "forwards; env, parity" in done.stderr
    if not torch.cuda.is_available():
        done = run_bench("--parts", "env")
        assert done.returncode == 0 and "no CUDA device" in done.stdout
