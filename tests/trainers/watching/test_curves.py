import json

import numpy as np
import pytest
from PIL import Image

from gve.__main__ import main as gve
from gve.trainers.watching.curriculum_map import draw_curricula
from gve.trainers.watching.curves_command import draw_run, find_state, read_history, series


def entries():
    history = []
    for epoch in range(3):
        probed = {"sigma": 0.1 + 0.45 * epoch, "step": 10 * epoch, "epoch": float(epoch)}
        for task, chance in (("t2v", 0.7 - 0.1 * epoch), ("i2v", 0.3 + 0.1 * epoch)):
            probed[f"P/{task}"] = chance
            if epoch:
                probed |= {f"R/{task}": 0.5, f"R_centred/{task}": 0.1 * epoch, f"accuracy/{task}": 0.2 * epoch}
        history.append(probed)
        for step in range(5):
            task, scores = ("t2v", "i2v")[step % 2], {"score_mean": 0.3, "score_positive": 0.5, "score_gap": -0.1}
            scores["loss"] = 3 - 0.1 * step
            entry = {"step": 10 * epoch + step + 1, "epoch": epoch + step / 5, "grad_norm": 1.0, f"batches/{task}": 1}
            entry |= {"tokens_per_second": 900.0, "padding_waste": 0.1, "data_wait_share": 0.2}
            history.append(entry | scores | {f"{name}/{task}": value for name, value in scores.items()})
        history.append({"step": 10 * epoch + 5, "eval_mean": 0.2 * epoch, "eval_msrvtt": 0.1, "eval_runtime": 3.0})
    return history


def write_state(folder, history):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    return folder


def test_series_are_read_by_prefix():
    found = series(entries(), "loss/")
    assert list(found) == ["t2v", "i2v"]
    assert found["i2v"] == ([2, 4, 12, 14, 22, 24], [2.9, 2.7] * 3)


def test_every_picture_is_drawn_once(tmp_path, capsys):
    run = write_state(tmp_path / "run", entries())
    assert gve(["curves", str(run)]) == 0
    names = [path.rpartition("/")[2] for path in capsys.readouterr().out.split()]
    assert names == ["tasks.png", "curriculum.png", "pace.png", "evaluation.png"]
    for name in names:
        with Image.open(run / "curves" / name) as picture:
            assert picture.size[0] > 1000
            assert len(picture.convert("L").getcolors(256)) > 20  # not blank


def test_what_was_not_logged_is_not_drawn(tmp_path):
    logged = [{k: v for k, v in entry.items() if "/" not in k and "eval" not in k} for entry in entries()]
    assert draw_run(write_state(tmp_path / "run", logged), tmp_path / "out") == [tmp_path / "out" / "pace.png"]


def test_an_unfinished_run_is_read_from_its_last_checkpoint(tmp_path):
    for step in (5, 10):
        write_state(tmp_path / f"checkpoint-{step}", entries()[:step])
    assert find_state(tmp_path) == tmp_path / "checkpoint-10" / "trainer_state.json"


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert gve(["curves", str(tmp_path)]) == 2
    assert "holds no trainer_state.json" in capsys.readouterr().err
    path = tmp_path / "other.json"
    for text, message in (("[]", "is not a trainer_state"), ("{", "is not"), ('{"log_history": []}', "an empty log")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_history(path)


def test_a_curriculum_has_a_row_for_each_source_under_its_task_and_a_number_in_each_cell():
    epochs = [entry | {"P/t2v-twins": 0.25} for entry in entries() if "sigma" in entry]
    figure = draw_curricula({"": epochs})
    panels = [axes for part in figure.subfigs for axes in part.axes]
    assert [axes.get_title() for axes in panels] == ["R'", "accuracy", "P, %"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["t2v", "t2v-twins", "i2v"]
    assert [text.get_text() for text in panels[1].texts[:3]] == ["-", "0.20", "0.40"]
    assert [text.get_text() for text in panels[2].texts] == [
        "70.0",
        "60.0",
        "50.0",
        *["25.0"] * 3,
        "30.0",
        "40.0",
        "50.0",
    ]
    assert [float(line.get_ydata()[0]) for line in panels[2].lines] == [1.5]
    assert panels[2].images[0].get_array()[1, 0] == pytest.approx(np.log2(0.75) / 2)  # .25 is less than a third


def test_many_curricula_share_a_picture_without_numbers_and_without_what_was_not_probed():
    epochs = [
        {name: value for name, value in entry.items() if name[:2] == "P/"} for entry in entries() if "sigma" in entry
    ]
    figure = draw_curricula(dict.fromkeys("abcd", epochs))
    assert [part.get_suptitle() for part in figure.subfigs[:4]] == list("abcd")
    assert [len(part.axes) for part in figure.subfigs[:4]] == [1] * 4
    assert not figure.subfigs[0].axes[0].texts
