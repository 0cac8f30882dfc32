"""What a captioner costs, the budget, what servers announce, videos that are sent whole, and the two HTML pages."""

import base64
import json

import pytest
import yaml
from stub_endpoint import StubEndpoint
from synth_stages import context_of, record_of

from gve.hub_datasets.vsynflow.captioner import Request, Response, Turn, VideoFile
from gve.hub_datasets.vsynflow.completions import FREE, OBJECT, SCHEMA, Announced, read_completion, read_models
from gve.hub_datasets.vsynflow.config import captioner_maker
from gve.hub_datasets.vsynflow.costs import COSTS, BudgetError, Ledger, paid
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.extension.pairs import rows_of
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.prompts import VIDEO_CAPTIONS
from gve.hub_datasets.vsynflow.stages import Kept
from gve.hub_datasets.vsynflow.status import read_table
from gve.hub_datasets.vsynflow.synth_command import main
from gve.hub_datasets.world.raw import write_raw_videos, write_titles

COUNT = 16
PRICES = {"input": 0.0, "output": 1000.0}  # 0.03 for each of the stub's answers, 1.2 for the longest
ANSWER = 0.03
HOSTED = {"id": "stub", "supported_parameters": ["response_format"], "architecture": {"input_modalities": ["video"]}}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_raw_videos(folder, COUNT, 3, 0, COUNT)
    write_titles(folder, COUNT, 3)
    (folder / "videos" / "v00009.mp4").write_bytes(b"no video" * 100)
    return folder


def call(capsys, *arguments):
    code = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else {}, captured.err


def plan(raw, run, stub, capsys, **captioner):
    config = run.with_suffix(".yaml")
    values = {
        "kind": "endpoint",
        "urls": [stub.url],
        "model": "stub",
        "in_flight": 4,
        "prices": PRICES,
        "media": "frames",
    }
    config.write_text(yaml.safe_dump({"profile": "world", "captioner": values | captioner}))
    columns = ["--video-column", "file", "--text-column", "title", "--media", raw / "videos"]
    table = [raw / "titles.csv", "--kind", "manifest", "--licence", "CC0-1.0", *columns]
    assert call(capsys, "plan", run, *table, "--config", config, "--shard-rows", 4)[0] == 0


def request(number=0, **turn):
    return Request(
        f"v{number}", VIDEO_CAPTIONS.label, (Turn("user", "Describe it.", **turn),), VIDEO_CAPTIONS.schema, 7
    )


def test_a_budget_stops_all_processes_and_what_was_paid_stays(raw, tmp_path, capsys):
    run, budget = tmp_path / "run", 1.5
    with StubEndpoint(latency=0.01) as stub:
        plan(raw, run, stub, capsys)
        code, _, error = call(capsys, "run", run, "--quiet", "--workers", 2, "--budget", budget)
        assert code == 1 and "All answers are kept: raise --budget" in error
        calls, found = len(stub.calls), call(capsys, "status", run)[1]["costs"]
        assert 0 < ANSWER * calls <= budget and found["cost"] == pytest.approx(ANSWER * calls)
        assert paid(run)["calls"] == found["calls"] == calls and found["budget"] == budget
        assert call(capsys, "run", run, "--quiet")[0] == 1, "a budget holds until another is given"
        assert len(stub.calls) == calls
        report = call(capsys, "report", run)
        assert report[0] == 0 and "0 of 4 shards are done" in (run / "report.html").read_text(encoding="utf-8")
        code, found, _ = call(capsys, "run", run, "--quiet", "--budget", 50)
        names = [name for name, _, _ in stub.calls]
    assert code == 0 and found["kept"] > 5 and len(names) == len(set(names)) > calls, "nothing is paid for twice"
    costs = call(capsys, "status", run)[1]["costs"]
    pairs = sum(1 for record in read_table(run, "kept") for _ in rows_of(record, 0))
    assert costs["pairs"] == pairs and costs["cost"] == pytest.approx(ANSWER * len(names))
    assert costs["per_1000_pairs"]["output_tokens"] == pytest.approx(30 * len(names) * 1000 / pairs, abs=1e-3)


def test_a_trial_shows_records_and_its_answers_are_used(raw, tmp_path, capsys):
    run = tmp_path / "run"
    with StubEndpoint(["bad-words"], shared=True) as stub:
        plan(raw, run, stub, capsys)
        code, found, _ = call(capsys, "try", run, 5)
        page, calls = (run / "try.html").read_text(encoding="utf-8"), len(stub.calls)
        assert code == 0 and calls and found["calls"] == calls and found["cost"] == pytest.approx(ANSWER * calls)
        assert page.count("<section>") == 5 and page.count("data:image/jpeg") >= 4 * 8 and 'src="http' not in page
        assert "A person walks a small brown dog" in page and "Perhaps a dog without a lead" in page
        assert f"<td>{found['cost'] / 5 * COUNT:,.2f}</td>" in page
        for path in (run / "journal").glob("*/try-*.jsonl"):
            path.unlink()  # as if the trial had been killed
        assert call(capsys, "try", run, 5)[1]["calls"] == 0 and len(stub.calls) == calls
        assert "Perhaps a dog" in (run / "try.html").read_text(encoding="utf-8"), "earlier answers are shown again"
        assert call(capsys, "run", run, "--engine", "inline", "--quiet")[0] == 0
        names = [name for name, _, _ in stub.calls]
    assert len(names) == len(set(names)) > calls
    assert call(capsys, "status", run)[1]["costs"]["calls"] == paid(run)["calls"] == len(names)
    assert "records: must be from 1 to the plan's 16, got 17" in call(capsys, "try", run, 17)[2]


def test_the_report_shows_what_became_of_all_records(raw, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "report.html"
    with StubEndpoint() as stub:
        plan(raw, run, stub, capsys)
        assert "Run gve synth run first" in call(capsys, "report", run)[2]
        ended = call(capsys, "run", run, "--engine", "inline", "--quiet")[1]
    assert call(capsys, "report", run, "--out", out)[:2] == (0, {"page": str(out)})
    page = out.read_text(encoding="utf-8")
    for stage in json.loads((run / "run.json").read_text())["stages"]:
        assert f"<td>{stage}</td>" in page
    assert f'<b class="mark kept">kept</b>  {ended["kept"]}</h3>' in page and "integrity: undecodable" in page
    assert "no frame decodes" in page and page.count("<svg") > 10 and 'src="http' not in page
    assert "<td>different texts</td>" not in page and "<th>different texts</th>" in page
    assert f"<td>{100 / ended['kept']:.0f}%</td>" in page, "the stub writes the same caption for all"


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"prices": PRICES, "budget": 0}, "budget must be above 0, got 0"),
        ({"prices": PRICES, "budget": float("nan")}, "budget must be above 0, got nan"),
        ({"budget": 3}, "budget: got 3 without prices"),
        ({"budget": 3, "prices": {"input": 0, "output": 0}}, "without prices"),
        ({"prices": {"input": 1}}, "prices must give input and output"),
        ({"prices": {"input": 1, "output": -1}}, "prices must give input and output"),
        ({"prices": "cheap"}, "prices must give input and output"),
        ({"media": "sound"}, "media must be one of"),
        ({"media": "auto"}, "/models does not answer"),
    ],
)
def test_what_cannot_be_kept_to_is_refused_before_any_work(values, match):
    with pytest.raises(ValueError, match=match):
        captioner_maker({"kind": "endpoint", "urls": ["http://127.0.0.1:9/v1"], "model": "m", **values})


def test_a_ledger_reserves_the_dearest_answer(tmp_path):
    with Journal(tmp_path / "journal" / "00000") as journal:  # of a run without a ledger
        journal.add("a", {"text": "x", "output_tokens": 100})
    ledger, one = Ledger(tmp_path / COSTS), request(images=(b"x",))
    ledger.start(PRICES, 2.5)
    assert ledger.read()["spent"] == pytest.approx(0.1)
    first = ledger.reserve(one)
    assert first == pytest.approx(1.024) and ledger.reserve(one) == first
    assert ledger.reserve(one) is None, "calls in flight hold the rest"
    ledger.settle(first, Response("x", "stop", 50, 30))
    third = ledger.reserve(one)
    ledger.settle(third, "connection")
    ledger.settle(first, "timeout")  # it may have been billed
    assert ledger.read()["spent"] == pytest.approx(0.1 + ANSWER + 1.024) and ledger.read()["reserved"] == 0
    ledger.settle(ledger.reserve(one), Response("x"))  # a server that reports no tokens
    with pytest.raises(BudgetError, match=r"budget: 2\.178 of 2\.5 is spent, and the next call may cost 1"):
        ledger.reserve(one)
    ledger.start(None, 9.0)
    assert ledger.reserve(one) == first
    ledger.start(None, None)  # the process was killed
    assert ledger.read()["spent"] == pytest.approx(2.178 + 1.024) and ledger.read()["budget"] == 9.0


def test_calls_wait_for_what_others_reserved(tmp_path):
    ledger = Ledger(tmp_path / COSTS)
    ledger.start(PRICES, 1.5)  # room for one call at a time, and for sixteen answers
    with StubEndpoint(latency=0.01) as stub:
        captioner = EndpointCaptioner([stub.url], "stub", in_flight=8, ledger=str(ledger.path))
        found = {}
        with pytest.raises(BudgetError):
            captioner.answer([request(number) for number in range(40)], found.__setitem__)
    assert stub.most_running == 1 and len(found) == len(stub.calls) == 16 and ledger.read()["reserved"] == 0


def test_what_holds_no_answer_is_billed_too():
    choice = {"message": {"content": "<think>hm"}, "finish_reason": "length"}
    response = read_completion({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1200}})
    assert response.error and (response.input_tokens, response.output_tokens) == (9, 1200)


@pytest.mark.parametrize(
    ("entry", "announced"),
    [
        ({"id": "m", "owned_by": "vllm"}, Announced(SCHEMA, False)),
        ({"id": "m", "supported_parameters": ["seed", "structured_outputs"]}, Announced(SCHEMA, False)),
        (
            {"id": "m", "supported_parameters": ["response_format"], "input_modalities": ["video"]},
            Announced(OBJECT, True),
        ),
        ({"id": "m", "supported_parameters": []}, Announced(FREE, False)),
        ({"id": "other", "architecture": {"input_modalities": ["video"]}}, Announced(SCHEMA, False)),
        ("m", Announced(SCHEMA, False)),
    ],
)
def test_what_servers_announce(entry, announced):
    assert read_models({"data": [entry]}, "m") == announced
    assert read_models({"data": entry}, "m") == read_models("busy", "m") == Announced()


def test_answers_are_asked_for_in_the_form_that_is_announced():
    forms = {}
    for served in ("stub", HOSTED, HOSTED | {"supported_parameters": []}):
        with StubEndpoint() as stub:
            stub.served, found = [served], {}
            EndpointCaptioner([stub.url], "stub").answer([request()], found.__setitem__)
            forms[json.dumps(served)] = stub.calls[0][2].get("response_format", {}).get("type", FREE)
    assert list(forms.values()) == [SCHEMA, OBJECT, FREE]


def test_videos_are_sent_whole_where_a_server_takes_them(raw, tmp_path, monkeypatch):
    path = raw / "videos" / "v00001.mp4"
    with StubEndpoint() as stub:
        values = {"kind": "endpoint", "urls": [stub.url], "model": "stub", "media": "auto"}
        assert captioner_maker(values)[0] == "stub", "nothing is announced"
        stub.served = [HOSTED]
        name, make = captioner_maker(values)
        assert name == make().name == "stub+video"
        stage, context = Enrichment(name, num_frames=2), context_of(tmp_path, captioner=make())
        (outcome,) = stage.run([record_of(path)], context)
        monkeypatch.setattr("gve.hub_datasets.vsynflow.enrichment.MOST_VIDEO_BYTES", 100)
        stage.run([record_of(path, "y")], context)
        bodies = [body["messages"][0]["content"] for _, _, body in stub.calls]
    assert isinstance(outcome, Kept) and outcome.columns["captioner"] == "stub+video"
    (video, words), (*frames, others) = bodies
    sent = video["video_url"]["url"].removeprefix("data:video/mp4;base64,")
    assert video["type"] == "video_url" and base64.b64decode(sent) == path.read_bytes()
    assert "all pictures of a video of" in words["text"] and "2 frames of a video" in others["text"]
    assert [frame["type"] for frame in frames] == ["image_url"] * 2, "a large video is shown by frames"


def test_the_key_of_a_request_names_its_video():
    keys = {request(video=VideoFile({}, name, 2.0)).key("stub") for name in "ab"} | {request().key("stub")}
    assert len(keys) == 3
