"""Captioners that see nothing, write another language or the same for all; a writer that needs no pictures."""

import json

import pytest
import yaml
from stub_endpoint import WORDS, StubEndpoint

from gve.hub_datasets.vsynflow.captioner import Request, Response, Turn
from gve.hub_datasets.vsynflow.captioner_checks import WINDOW, Watch, check_sight
from gve.hub_datasets.vsynflow.completions import OBJECT, SCHEMA
from gve.hub_datasets.vsynflow.config import make_config, make_flow
from gve.hub_datasets.vsynflow.costs import paid
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.fingerprints import make_fingerprints
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.prompts import IMAGE_QUERY
from gve.hub_datasets.vsynflow.stages import SetupError
from gve.hub_datasets.vsynflow.status import read_table
from gve.hub_datasets.vsynflow.synth_command import main
from gve.hub_datasets.vsynflow.validation import Violation
from gve.hub_datasets.world.raw import write_raw_videos, write_titles

COUNT = 6


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_raw_videos(folder, COUNT, 4, 0, COUNT)
    write_titles(folder, COUNT, 4)
    return folder


def synth(raw, run, capsys, *arguments, **values):
    """Plan, run or try a run under a configuration; the code, the JSON or nothing, and the errors."""
    config = run.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({"profile": "world", **values}))
    columns = ["--video-column", "file", "--text-column", "title", "--media", str(raw / "videos")]
    table = [str(raw / "titles.csv"), "--kind", "manifest", "--licence", "CC0-1.0", *columns]
    assert main(["plan", str(run), *table, "--config", str(config)]) == 0
    capsys.readouterr()
    code = main([arguments[0], str(run), *arguments[1:]])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else {}, captured.err


def endpoint(stub, **options):
    return {"kind": "endpoint", "urls": [stub.url], "model": "stub", **options}


def prompts(stub):
    return [body["response_format"]["json_schema"]["name"] for _, _, body in stub.calls]


def pictures(body):
    return [part for turn in body["messages"] for part in turn["content"] if not isinstance(part, str)]


@pytest.mark.parametrize(
    ("tokens", "faults", "why"),
    [
        (lambda url: 0, [], "a picture takes 0 tokens"),
        (len, [], r"a picture takes \d+ tokens, and another of the same size \d+ more"),  # its bytes, read as text
        (lambda url: 10, ["ok", *["500"] * 4], "http-500: injected"),
        (lambda url: 10, [], None),
        (lambda url: -90, [], None),  # it counts none
        (lambda url: 10, ["500"] * 6, None),  # it is out of order
    ],
    ids=["ignored", "as text", "refused", "sees", "no counts", "away"],
)
def test_a_server_that_takes_no_pictures_is_told_before_any_record(tmp_path, tokens, faults, why):
    with StubEndpoint(faults, shared=True) as stub, Journal(tmp_path) as journal:
        stub.picture_tokens = tokens
        captioner = EndpointCaptioner([stub.url], "stub", in_flight=1)
        if why:
            with pytest.raises(SetupError, match=f"stub at .* takes no pictures .{why}"):
                check_sight(captioner, journal)
        else:
            check_sight(captioner, journal)
        assert len(stub.calls) <= 6


def test_the_commands_check_once_and_a_writer_needs_no_pictures(raw, tmp_path, capsys):
    with StubEndpoint() as stub:
        stub.picture_tokens = lambda url: 0
        for command in (["try", "2"], ["run", "--quiet"]):
            code, _, error = synth(raw, tmp_path / "blind", capsys, *command, captioner=endpoint(stub))
            assert code == 2 and "takes no pictures" in error
        assert prompts(stub) == ["sight-1"] * 3, "the journal keeps the answers"
        stub.calls.clear()
        values = {"captioner": {"kind": "world", "folder": str(raw)}, "writer": endpoint(stub)}
        code, found, _ = synth(raw, tmp_path / "run", capsys, "run", "--engine", "inline", "--quiet", **values)
        assert code == 0 and found["kept"] > 2
        assert set(prompts(stub)) == {"image-query-1", "clip-query-1"}
        assert not any(pictures(body) for _, _, body in stub.calls), "words alone"
        assert paid(tmp_path / "run")["output_tokens"] == 30 * len(stub.calls)
    kept = list(read_table(tmp_path / "run", "kept"))
    assert {row["captioner"] for row in kept} == {"world-truth"} and all(row["frame_captions"] for row in kept)
    with pytest.raises(ValueError, match="writer: got one without a captioner"):
        make_flow(make_config({"writer": values["writer"]}))
    with pytest.raises(ValueError, match=r"writer\.budget: the captioner's budget is for both"):
        make_flow(make_config(values | {"writer": {**values["writer"], "budget": 1}}))


class LlamaStub(StubEndpoint):
    """Takes a schema as llama-cpp-python does, and says so under status 500."""

    def send(self, handler, status, value):
        if self.calls and self.calls[-1][2].get("response_format", {}).get("type") == SCHEMA:
            status, value = 500, {"error": {"message": "('response_format', 'type'): input should be 'json_object'"}}
        super().send(handler, status, value)


def test_a_server_that_spells_schemas_otherwise_is_asked_once():
    with LlamaStub() as stub:
        captioner = EndpointCaptioner([stub.url], "stub", in_flight=1)
        for number in range(2):
            found = {}
            turns = (Turn("user", "Write."),)
            captioner.answer([Request(f"v{number}", "q/1", turns, IMAGE_QUERY.schema, 0)], found.__setitem__)
            assert found[0].text and not found[0].error
        forms = [body["response_format"] for _, _, body in stub.calls]
    assert [form["type"] for form in forms] == [SCHEMA, OBJECT, OBJECT]
    assert forms[1]["schema"]["properties"] == {"query": {"type": "string"}}, "lengths end llama.cpp"


def test_the_same_answer_or_another_language_is_told_with_numbers(caplog):
    english, foreign = (), (Violation("english", "2", "English is wanted"),)
    for texts, rules, said in (
        (["a dog"] * WINDOW, english, f"captioner same: {WINDOW} of {WINDOW} answers in a row are the same"),
        (range(WINDOW), foreign, f"captioner other: {WINDOW} of {WINDOW} answers in a row are not in English"),
        (range(WINDOW * 2), english, ""),
    ):
        caplog.clear()
        watch = Watch("same" if texts == ["a dog"] * WINDOW else "other")
        for _ in range(2):
            watch.see((Response(str(text)), rules) for text in texts)
        assert len(caplog.records) == bool(said) and said in caplog.text, "once"


def test_the_run_says_that_all_captions_are_the_same(raw, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setattr("gve.hub_datasets.vsynflow.captioner_checks.WINDOW", 3)
    with StubEndpoint() as stub:
        given = endpoint(stub, media="frames", model="stub-of-one-caption")
        code, found, _ = synth(raw, tmp_path / "run", capsys, "run", "--engine", "inline", "--quiet", captioner=given)
    assert code == 0 and found["kept"] > 2
    assert "captioner stub-of-one-caption: 3 of 3 answers in a row are the same" in caplog.text


def test_a_leaked_video_costs_no_call_and_leaked_captions_are_refused(raw, tmp_path, capsys):
    leaked = [{"path": str(path), "offset": None, "size": None} for path in sorted((raw / "videos").iterdir())[:3]]
    runs, paid_for = {}, {}
    for name, items in {
        "clean": [],
        "videos": [{"ids": [], "video": place, "texts": []} for place in leaked],
        "texts": [{"ids": [], "video": None, "texts": [WORDS["2"]]}],
    }.items():
        marks = tmp_path / f"{name}.safetensors"
        make_fingerprints(name, items).save(marks)
        with StubEndpoint() as stub:
            values = {"captioner": endpoint(stub, media="frames"), "fingerprints": str(marks)}
            values["most_bits"] = 0  # a rendered clip resembles others
            arguments = ["run", "--engine", "inline", "--quiet"]
            assert synth(raw, tmp_path / name, capsys, *arguments, **values)[0] == 0
            paid_for[name] = len([prompt for prompt in prompts(stub) if prompt == "video-1"])
        refused = (tmp_path / name, "rejected")
        runs[name] = [row["stage"] for row in read_table(*refused) if row["stage"].startswith("decontamination")]
    caught = runs["videos"].count("decontamination")
    assert (
        runs["clean"] == [] and 1 <= caught == len(runs["videos"]) and paid_for["videos"] == paid_for["clean"] - caught
    )
    assert runs["texts"] == ["decontamination_written"] * paid_for["texts"] and paid_for["texts"] == paid_for["clean"]
