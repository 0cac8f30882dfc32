"""Asking again: repair turns, new seeds, cut answers, batch files."""

import json
from functools import partial

import pytest
from stub_endpoint import WORDS, WRAPPINGS, StubEndpoint

from gve.hub_datasets.vsynflow.batch_files import WAITING, BatchCaptioner, read_responses
from gve.hub_datasets.vsynflow.captioner import Request, Response, Turn
from gve.hub_datasets.vsynflow.dialogue import Ask, converse
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.prompts import VIDEO_CAPTIONS
from gve.hub_datasets.vsynflow.stages import Failed, Rejected
from gve.hub_datasets.vsynflow.validation import check_captions

SCHEMA = VIDEO_CAPTIONS.schema


def ask(number=0):
    turns = (Turn("user", "Describe it.", (b"\xff\xd8",)),)
    request = Request(f"v{number}", "video/1", turns, SCHEMA, seed=5)
    return Ask(request, partial(check_captions, schema=SCHEMA, kind="video"))


class Scripted:
    """A captioner that says what it is told to, call by call."""

    name = "scripted"

    def __init__(self, *script):
        self.script, self.seen = list(script), []

    def answer(self, requests, done):
        for number, request in enumerate(requests):
            self.seen.append(request)
            done(number, self.script.pop(0))


def right():
    return Response(json.dumps(WORDS), "stop", 9, 4)


def test_a_repair_turn_continues_the_conversation(tmp_path):
    captioner = Scripted(Response(json.dumps({**WORDS, "1": "A dog runs along here."}), "stop", 9, 4), right())
    (answer,) = converse([ask()], captioner, Journal(tmp_path))
    assert answer.texts == WORDS and answer.attempts == 2 and answer.verdict("captions") is None
    assert (answer.input_tokens, answer.output_tokens) == (18, 8)
    first, second = captioner.seen
    assert [turn.role for turn in second.turns] == ["user", "assistant", "user"]
    assert second.turns[0] == first.turns[0] and "10 to 25 are wanted" in second.turns[2].text
    assert second.seed == first.seed


def test_then_another_seed_then_rejected(tmp_path):
    bad = Response("nothing", "stop", 1, 1)
    captioner = Scripted(bad, bad, bad, bad)
    (answer,) = converse([ask()], captioner, Journal(tmp_path))
    assert answer.verdict("captions") == Rejected("captions-json", 4.0)
    assert [len(request.turns) for request in captioner.seen] == [1, 3, 1, 3]
    assert captioner.seen[2].seed != captioner.seen[0].seed


def test_a_cut_answer_is_not_repaired_but_asked_for_anew(tmp_path):
    captioner = Scripted(Response("{", "length"), right())
    (answer,) = converse([ask()], captioner, Journal(tmp_path))
    assert answer.texts == WORDS and len(captioner.seen[1].turns) == 1


def test_a_broken_call_fails_and_is_no_rejection(tmp_path):
    captioner = Scripted(Response(error="http-500", retryable=True), right())
    answers = converse([ask(0), ask(1)], captioner, Journal(tmp_path))
    assert answers[0].verdict("captions") == Failed("http-500", True) and answers[1].texts == WORDS
    again = Scripted(right())  # only the failed one is asked for
    assert [one.texts for one in converse([ask(0), ask(1)], again, Journal(tmp_path))] == [WORDS, WORDS]
    assert [request.record for request in again.seen] == ["v0"]


def test_a_rerun_takes_the_same_way_for_nothing(tmp_path):
    bad = Response("nothing", "stop", 1, 1)
    first = converse([ask()], Scripted(bad, right()), Journal(tmp_path))
    assert converse([ask()], Scripted(), Journal(tmp_path)) == first


@pytest.mark.parametrize("fault", ["bad-json", "bad-schema", "bad-words", "length"])
def test_every_bad_answer_of_a_server_is_mended(tmp_path, fault):
    with StubEndpoint(["429", fault, "500"], shared=True) as stub:
        (answer,) = converse([ask()], EndpointCaptioner([stub.url], "stub"), Journal(tmp_path))
    assert (answer.texts, answer.attempts) == (WORDS, 2)
    assert [name for _, name, _ in stub.calls] == ["429", fault, "500", "ok"]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_right_answer_passes_at_once_however_a_server_wraps_it(tmp_path, wrapping):
    with StubEndpoint([wrapping]) as stub:
        (answer,) = converse([ask()], EndpointCaptioner([stub.url], "stub"), Journal(tmp_path))
    assert (answer.texts, answer.attempts, len(stub.calls)) == (WORDS, 1, 1)
    counts = {"null-counts": (0, 0), "no-counts": (0, 0), "float-counts": (5, 5)}
    assert (answer.input_tokens, answer.output_tokens) == counts.get(wrapping, (90, 30))


def test_thoughts_are_not_sent_back(tmp_path):
    bad = Response("<think>hm</think>" + json.dumps({**WORDS, "1": "A dog runs along here."}))
    captioner = Scripted(bad, right())
    converse([ask()], captioner, Journal(tmp_path))
    assert captioner.seen[1].turns[1].text.startswith('{"1"')


def test_batch_files_go_out_and_come_back(tmp_path):
    captioner, asks = BatchCaptioner(tmp_path / "batch", "stub"), [ask(0), ask(1)]
    answers = converse(asks, captioner, Journal(tmp_path / "journal"))
    assert [one.verdict("captions") for one in answers] == [Failed(WAITING, True)] * 2
    converse(asks, captioner, Journal(tmp_path / "journal"))  # nothing is written twice
    (file,) = (tmp_path / "batch").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["custom_id"] for line in lines} == {one.request.key("stub") for one in asks}
    assert lines[0]["body"]["messages"][0]["content"][0]["type"] == "image_url"
    body = {"choices": [{"message": {"content": json.dumps(WORDS)}, "finish_reason": "stop"}]}
    ok, bad = ({"status_code": 200, "body": body}, {"status_code": 500, "body": {}})
    out = tmp_path / "batch" / "responses-1.jsonl"
    rows = [{"custom_id": line["custom_id"], "response": r} for line, r in zip(lines, (ok, bad), strict=True)]
    out.write_text("\n".join(json.dumps(row) for row in rows))
    assert sorted(response.error for response in read_responses([out]).values()) == ["", "batch-500"]
    answers = converse(asks, captioner, Journal(tmp_path / "journal"))
    assert sorted(one.texts == WORDS for one in answers) == [False, True]


def test_what_a_batch_answered_by_an_error_is_written_down_again_once(tmp_path):
    captioner, folder = BatchCaptioner(tmp_path / "batch", "stub"), tmp_path / "batch"

    def verdicts():
        answers = converse([ask(0), ask(1)], captioner, Journal(tmp_path / "journal"))
        return [one.texts == WORDS or one.failure.code for one in answers], len(list(folder.glob("requests-*.jsonl")))

    assert verdicts() == ([WAITING, WAITING], 1)
    first, second = (one.request.key("stub") for one in (ask(0), ask(1)))
    body = {"choices": [{"message": {"content": json.dumps(WORDS) + "\u2028"}}], "usage": {"prompt_tokens": None}}
    lines = [
        {"custom_id": first, "response": {"status_code": 400, "body": {"error": {"message": "at most 4 images"}}}},
        {"custom_id": second, "response": {"status_code": 200, "body": body}},
    ]
    text = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "responses-2.jsonl").write_text(f"\ufeff{text}\n", encoding="utf-8")
    for _ in range(2):
        assert verdicts() == (["batch-400: at most 4 images", True], 2)
    lines[0]["response"] = None
    lines[0]["error"] = {"code": "batch_expired", "message": "too late"}
    (folder / "responses-3.jsonl").write_text(json.dumps(lines[0]))
    assert verdicts() == (["batch-400: at most 4 images", True], 3)
    lines[0].update(lines[1] | {"custom_id": first}, error=None)
    (folder / "responses-1.jsonl").write_text(json.dumps(lines[0]))
    assert verdicts() == ([True, True], 3)


def test_a_broken_batch_file(tmp_path):
    (tmp_path / "responses.jsonl").write_text('{"custom_id": "a"}\n{"id": 1}\n')
    with pytest.raises(ValueError, match=r"line 2 of responses\.jsonl"):
        read_responses([tmp_path / "responses.jsonl"])
