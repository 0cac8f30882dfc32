"""Asking again: repair turns, new seeds, cut answers, batch files."""

import json
from functools import partial

import pytest
from stub_endpoint import WORDS, StubEndpoint

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
    request = Request(f"v{number}", "video/1", (Turn("user", "Describe it.", (b"\xff\xd8",)),), SCHEMA, seed=5)
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


RIGHT, BAD = Response(json.dumps(WORDS), "stop", 9, 4), Response("nothing", "stop", 1, 1)
SHORT = json.dumps({**WORDS, "1": "A dog runs along here."})


def test_a_repair_turn_continues_the_conversation(tmp_path):
    captioner = Scripted(Response(f"<think>hm</think>{SHORT}", "stop", 9, 4), RIGHT)
    (answer,) = converse([ask()], captioner, Journal(tmp_path))
    assert answer.texts == WORDS and answer.attempts == 2 and answer.verdict("captions") is None
    assert (answer.input_tokens, answer.output_tokens) == (18, 8)
    first, second = captioner.seen
    assert [turn.role for turn in second.turns] == ["user", "assistant", "user"]
    assert second.turns[0] == first.turns[0] and "10 to 25 are wanted" in second.turns[2].text
    assert second.turns[1].text == SHORT, "thoughts are not sent back"
    assert second.seed == first.seed


def test_then_another_seed_then_rejected(tmp_path):
    captioner = Scripted(BAD, BAD, BAD, BAD)
    (answer,) = converse([ask()], captioner, Journal(tmp_path))
    assert answer.verdict("captions") == Rejected("captions-json", 4.0)
    assert [len(request.turns) for request in captioner.seen] == [1, 3, 1, 3]
    assert captioner.seen[2].seed != captioner.seen[0].seed


def test_a_cut_answer_is_not_repaired_but_asked_for_anew(tmp_path):
    captioner = Scripted(Response("{", "length"), RIGHT)
    (answer,) = converse([ask()], captioner, Journal(tmp_path))
    assert answer.texts == WORDS and len(captioner.seen[1].turns) == 1


def test_a_broken_call_fails_and_is_no_rejection(tmp_path):
    captioner = Scripted(Response(error="http-500", retryable=True), RIGHT)
    answers = converse([ask(0), ask(1)], captioner, Journal(tmp_path))
    assert answers[0].verdict("captions") == Failed("http-500", True) and answers[1].texts == WORDS
    again = Scripted(RIGHT)  # only the failed one is asked for
    assert [one.texts for one in converse([ask(0), ask(1)], again, Journal(tmp_path))] == [WORDS, WORDS]
    assert [request.record for request in again.seen] == ["v0"]


def test_a_rerun_takes_the_same_way_for_nothing(tmp_path):
    first = converse([ask()], Scripted(BAD, RIGHT), Journal(tmp_path))
    assert converse([ask()], Scripted(), Journal(tmp_path)) == first


@pytest.mark.parametrize("fault", ["bad-json", "bad-schema", "bad-words", "length"])
def test_every_bad_answer_of_a_server_is_mended(tmp_path, fault):
    with StubEndpoint(["429", fault, "500"], shared=True) as stub:
        (answer,) = converse([ask()], EndpointCaptioner([stub.url], "stub"), Journal(tmp_path))
    assert (answer.texts, answer.attempts) == (WORDS, 2)
    assert [name for _, name, _ in stub.calls] == ["429", fault, "500", "ok"]


def test_batch_files_go_out_and_what_came_back_as_an_error_goes_out_again_once(tmp_path):
    captioner, folder, asks = BatchCaptioner(tmp_path / "batch", "stub"), tmp_path / "batch", [ask(0), ask(1)]

    def verdicts():
        answers = converse(asks, captioner, Journal(tmp_path / "journal"))
        return [one.texts == WORDS or one.failure for one in answers], len(list(folder.glob("requests-*.jsonl")))

    waiting, refused = Failed(WAITING, True), Failed("batch-400: at most 4 images", True)
    for _ in range(2):
        assert verdicts() == ([waiting, waiting], 1)
    (file,) = folder.iterdir()
    sent = [json.loads(line) for line in file.read_text().splitlines()]
    first, second = (one.request.key("stub") for one in asks)
    assert {line["custom_id"] for line in sent} == {first, second}
    assert sent[0]["body"]["messages"][0]["content"][0]["type"] == "image_url"
    body = {"choices": [{"message": {"content": json.dumps(WORDS) + "\u2028"}}], "usage": {"prompt_tokens": None}}
    right = {"custom_id": second, "response": {"status_code": 200, "body": body}}
    wrong = {"custom_id": first, "response": {"status_code": 400, "body": {"error": {"message": "at most 4 images"}}}}
    text = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in (wrong, right))
    (folder / "responses-2.jsonl").write_text(f"\ufeff{text}\n", encoding="utf-8")
    for _ in range(2):
        assert verdicts() == ([refused, True], 2)
    late = {"custom_id": first, "response": None, "error": {"code": "batch_expired", "message": "too late"}}
    (folder / "responses-3.jsonl").write_text(json.dumps(late))
    assert verdicts() == ([refused, True], 3)
    (folder / "responses-1.jsonl").write_text(json.dumps({**right, "custom_id": first}))
    assert verdicts() == ([True, True], 3)


def test_a_broken_batch_file(tmp_path):
    (tmp_path / "responses.jsonl").write_text('{"custom_id": "a"}\n{"id": 1}\n')
    with pytest.raises(ValueError, match=r"line 2 of responses\.jsonl"):
        read_responses([tmp_path / "responses.jsonl"])
