import pytest

from gve.trainers import GVETrainingArguments


def make(tmp_path, **changes):
    return GVETrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **changes)


def test_numbers_by_task(tmp_path):
    args = make(tmp_path, task_batch_sizes='{"t2i": 32}', num_negatives={"t2v": 1})
    assert (args.batch_size_of("t2i"), args.batch_size_of("t2v")) == (32, 64)
    assert (args.negatives_of("t2v"), args.negatives_of("t2i")) == (1, 0)
    assert make(tmp_path, num_negatives="2").negatives_of("t2i") == 2


def test_errors_name_the_field(tmp_path):
    for changes, message in (
        ({"temperature": 0.0}, "temperature: got 0.0"),
        ({"schedule": "hardest"}, "schedule: got 'hardest'; pyramid, pyramid-centred"),
        ({"sigma_min": 0.5, "sigma_max": 0.2}, "sigma_max: got 0.2; 0.5 to"),
        ({"probe_pairs": 1}, "probe_pairs: got 1"),
        ({"probability_cap": 0.2, "probability_floor": 0.3}, "probability_floor: got 0.3"),
        ({"steps_per_epoch": 0}, "steps_per_epoch: got 0"),
        ({"false_negative_margin": -1.0}, "false_negative_margin: got -1.0"),
        ({"task_batch_sizes": {"x2v": 3}}, "task_batch_sizes: got x2v; t2t, t2i"),
        ({"task_batch_sizes": {"t2v": 0}}, "task_batch_sizes: got {'t2v': 0}; numbers of at least 1"),
        ({"task_batch_sizes": "t2v=3"}, "task_batch_sizes: got 't2v=3'; JSON"),
        ({"num_negatives": {"t2v": -1}}, "num_negatives: got"),
        ({"prompts": {"query": "x"}}, "prompts: got a value"),
        ({"schedule": "unlock"}, "probability_floor: got 0 with the schedule unlock"),
        ({"unlock_margin": 0.0}, "unlock_margin: got 0.0"),
        ({"on_missing": "drop"}, "on_missing: got 'drop'"),
        ({"vision_cache_dtype": "int4"}, "vision_cache_dtype: got 'int4'; auto, float32, bfloat16, int8 are accepted"),
        ({"vision_cache_gb": 0.0}, "vision_cache_gb: got 0.0"),
        ({"remine_every_epoch": True, "num_negatives": 0}, "remine_every_epoch: got True with num_negatives 0"),
        ({"reference_negatives": ["t2v"]}, r"reference_negatives: got t2v; .* \(ti2v, tv2v, i2v, v2v\)"),
        ({"reference_negatives": ["v2v"]}, "reference_negatives: got v2v with false_negative_margin 0.1"),
        ({"mine_corpus": "folder"}, "mine_corpus: got a corpus that nothing is mined from"),
        ({"mine_ceiling": 2.0}, "ceiling: got 2.0"),
        ({"cache_tokens": 0}, "cache_tokens: got 0; 1 to 1e"),
        ({"matryoshka_dims": [4, 4]}, r"matryoshka_dims: got \[4, 4\]; different widths"),
        ({"compile_layers": True, "torch_compile": True}, "compile_layers: got True with torch_compile"),
        ({"remove_unused_columns": True}, "remove_unused_columns: got True"),
    ):
        with pytest.raises(ValueError, match=message):
            make(tmp_path, **changes)
