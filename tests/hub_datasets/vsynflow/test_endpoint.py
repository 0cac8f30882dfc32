"""The HTTP captioner against a server that breaks in every known way."""

import base64
import time
from dataclasses import replace

import pytest
from stub_endpoint import StubEndpoint

from gve.hub_datasets.vsynflow.captioner import Request, Response, Turn, answer_once
from gve.hub_datasets.vsynflow.completions import read_completion, with_words
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner, retry_after
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.prompts import VIDEO_CAPTIONS


def request(number=0, **changes):
    turns = (Turn("user", "Describe it.", (b"\xff\xd8one", b"\xff\xd8two")),)
    made = Request(f"v{number}", VIDEO_CAPTIONS.label, turns, VIDEO_CAPTIONS.schema, 7)
    return replace(made, **changes)


def ask(captioner, requests):
    found = {}

    def done(number, response):
        assert number not in found, "answered twice"
        found[number] = response

    captioner.answer(requests, done)
    return [found[number] for number in range(len(requests))]


def captioner(stub, **changes):
    return EndpointCaptioner([stub.url], "stub", **{"retries": 4, "call_seconds": 5.0} | changes)


def completion(content=None, finish="stop", **message):
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": finish}]}


def test_what_is_sent(tmp_path):
    (tmp_path / "key").write_text("secret\n")
    with StubEndpoint() as stub:
        (response,) = ask(captioner(stub, key_file=str(tmp_path / "key")), [request()])
    assert stub.headers[0]["Authorization"] == "Bearer secret"
    assert response.text.startswith('{"1": "A person') and response.finish == "stop"
    assert (response.input_tokens, response.output_tokens) == (110, 30)
    ((name, _, body),) = stub.calls
    assert name == request().key("stub")
    assert (body["seed"], body["model"], body["max_tokens"], body["temperature"]) == (7, "stub", 1024, 0.7)
    first, _, words = body["messages"][0]["content"]
    assert words == {"type": "text", "text": "Describe it."}
    assert base64.b64decode(first["image_url"]["url"].removeprefix("data:image/jpeg;base64,")) == b"\xff\xd8one"
    assert body["response_format"]["json_schema"]["schema"] == VIDEO_CAPTIONS.schema


@pytest.mark.parametrize(
    "faults", [["429", "429"], ["500"], ["drop"], ["not-a-completion"], ["busy-object"], ["slow"]], ids=str
)
def test_it_tries_again(faults):
    with StubEndpoint(faults, slow=0.3) as stub:
        (response,) = ask(captioner(stub, call_seconds=0.2), [request()])
    assert not response.error and response.text
    assert [fault for _, fault, _ in stub.calls] == [*faults, "ok"]


def test_retry_after_is_kept_to():
    with StubEndpoint(["429"], retry_after=0.4) as stub:
        start = time.monotonic()
        ask(captioner(stub), [request()])
    assert time.monotonic() - start >= 0.4, "the first pause would be 0.25 s at most"
    assert retry_after("3") == 3 and retry_after(None) is None and retry_after("soon") is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0 and retry_after("99999") == 300


def test_errors_that_stay_are_named():
    for faults, retries, error, count in (
        (["500"] * 9, 1, "http-500: injected", 2),
        (["busy-object"] * 9, 1, "http-503: no endpoints that support image input", 2),
        (["418"], 4, "http-418: injected", 1),
        (["error-object"] * 9, 4, "server-error: no endpoints that support image input", 1),
    ):
        with StubEndpoint(faults) as stub:
            (response,) = ask(captioner(stub, retries=retries), [request()])
        assert (response.error, response.retryable, len(stub.calls)) == (error, True, count)
    (response,) = ask(captioner(stub, retries=0), [request()])  # nobody listens there any more
    assert (response.error, response.retryable) == ("connection", True)


def test_the_deadline_covers_all_retries():
    with StubEndpoint(["429"] * 99, retry_after=0.2) as stub:
        start = time.monotonic()
        (response,) = ask(captioner(stub, deadline=0.3, retries=99), [request()])
    assert (response.error, response.retryable) == ("deadline", True)
    assert time.monotonic() - start < 10  # the retries alone would wait for 19.8 s


def test_in_flight_is_bounded_and_used():
    with StubEndpoint(latency=0.05) as stub:
        responses = ask(captioner(stub, in_flight=4), [request(number) for number in range(16)])
    assert all(response.text for response in responses)
    assert stub.most_running == 4


def test_a_server_that_refuses_schemas_is_asked_without():
    with StubEndpoint(refuses_schema=True) as stub:
        responses = ask(captioner(stub, in_flight=1), [request(0), request(1)])
    assert all(response.text for response in responses)
    assert [fault for _, fault, _ in stub.calls] == ["400", "ok", "ok"]
    with StubEndpoint(["400", "400"], shared=True) as stub:
        wrong, right = ask(captioner(stub, in_flight=1), [request(0), request(1)])
    assert wrong.error == "http-400: injected" and right.text
    schemas = ["response_format" in body for _, _, body in stub.calls]
    assert schemas == [True, False, True], "a request that is wrong by itself keeps the schema for the others"


def test_a_full_disk_is_told_by_its_type():
    def done(number, response):
        raise OSError(28, "no space left")

    with StubEndpoint() as stub, pytest.raises(OSError, match="no space left"):
        captioner(stub).answer([request(0), request(1)], done)


def test_a_dead_server_among_two():
    with StubEndpoint() as dead:
        pass
    with StubEndpoint() as stub:
        both = EndpointCaptioner([dead.url, stub.url], "stub", in_flight=2, retries=5)
        responses = ask(both, [request(number) for number in range(6)])
    assert all(response.text for response in responses)


def test_nothing_is_paid_for_twice(tmp_path):
    requests = [request(0), request(1), request(0)]
    with StubEndpoint() as stub, Journal(tmp_path) as journal:
        first = answer_once(captioner(stub), requests, journal)
        assert len(stub.calls) == 2 and first[0] == first[2]
        assert answer_once(captioner(stub), requests, Journal(tmp_path)) == first
        assert len(stub.calls) == 2


def test_a_key_is_all_that_the_answer_depends_on():
    keys = {request().key("stub"), request(1).key("stub"), request().key("other"), request(seed=8).key("stub")}
    keys |= {request(turns=(Turn("user", "It.", (b"other",)),)).key("stub"), request(max_tokens=9).key("stub")}
    assert len(keys) == 6 and request().key("stub") in keys


def test_answers_of_every_shape_are_read_and_nothing_else():
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": '{"1":'}, {"type": "text", "text": '"x"}'}]
    assert read_completion(completion(parts)).text == '{"1":"x"}'
    for name in ("reasoning_content", "reasoning"):
        assert read_completion(completion(**{name: '{"1": "x"}'})).text == '{"1": "x"}'
    assert read_completion(completion("x", "length")) == Response("x", "length")
    assert read_completion(completion("a \ud83d")).text == "a ?", "halves of letters do not reach the journal"
    for other in ("text", None, [], {}, {"choices": None}, {"choices": [None]}, {"choices": [{"message": None}]}):
        assert read_completion(other) is None


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": None, "completion_tokens": 3}, (0, 3)),
        ({"prompt_tokens": 90.0, "completion_tokens": float("nan")}, (90, 0)),
        ({"prompt_tokens": "many"}, (0, 0)),
        (None, (0, 0)),
        ([1], (0, 0)),
    ],
)
def test_counts_of_all_kinds(usage, counts):
    response = read_completion({**completion("x"), "usage": usage})
    found = (response.input_tokens, response.output_tokens)
    assert found == counts and {type(count) for count in found} == {int}


CUT = '<think>The keys are {"1": "", and then'


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"message": "no endpoints that support image input " * 20}}, "server-error: no endpoints that"),
        (completion(refusal="I see a face"), "no-answer: I see a face"),
        (completion(), "no-answer: content is empty, finish_reason stop"),
        (completion(CUT, "length"), "no-answer: thinking took all max_tokens"),
        (completion(None, "length", reasoning_content=CUT), "no-answer: thinking took all max_tokens"),
    ],
)
def test_what_holds_no_answer_says_why(body, error):
    response = read_completion(body)
    assert response.error.startswith(error) and response.retryable and len(response.error) <= 220


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too long", "code": None}},
        {"error": "too long"},
        {"object": "error", "message": "too long"},
        {"detail": [{"loc": ["body"], "msg": "too long"}]},
        "too\n long",
    ],
)
def test_the_servers_own_words(body):
    assert with_words("http-400", body) == "http-400: too long"
    assert with_words("http-400", {"choices": []}) == with_words("http-400", None) == "http-400"


def test_what_is_no_answer_in_a_journal_is_asked_for_again(tmp_path):
    requests, kept = list(map(request, range(4))), ({"text": None}, {"text": "x", "of_another_version": 1}, "x", ["x"])
    with StubEndpoint() as stub, Journal(tmp_path) as journal:
        for one, entry in zip(requests, kept, strict=True):
            journal.add(one.key("stub"), entry)
        found = answer_once(captioner(stub), requests, journal)
        assert len(stub.calls) == 4 and all(response.text.startswith('{"1"') for response in found)
        bare = {"text": "x", "finish": "stop", "input_tokens": None, "output_tokens": 4.0}
        journal.add(request(4).key("stub"), bare)
        assert answer_once(captioner(stub), [request(4)], journal) == [Response("x", "stop", 0, 4)]
        assert len(stub.calls) == 4


def test_wrong_urls_and_numbers():
    for urls, in_flight, match in ((["host:80"], 1, "urls must"), ([], 1, "urls must"), (["http://x/v1"], 0, "got 0")):
        with pytest.raises(ValueError, match=match):
            EndpointCaptioner(urls, "stub", in_flight=in_flight)
