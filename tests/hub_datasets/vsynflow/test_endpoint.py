"""The HTTP captioner against a server that breaks in every known way."""

import base64
import threading
import time

import pytest
from stub_endpoint import StubEndpoint

from gve.hub_datasets.vsynflow.captioner import Request, Response, Turn, answer_once
from gve.hub_datasets.vsynflow.completions import read_completion, with_words
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner, retry_after
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.prompts import VIDEO_CAPTIONS
from gve.hub_datasets.vsynflow.validation import parse_texts


def request(number=0, **changes):
    settings = {
        "record": f"v{number}",
        "prompt": VIDEO_CAPTIONS.label,
        "turns": (Turn("user", "Describe it.", (b"\xff\xd8one", b"\xff\xd8two")),),
        "schema": VIDEO_CAPTIONS.schema,
        "seed": 7,
    }
    return Request(**settings | changes)


def ask(captioner, requests):
    found = {}

    def done(number, response):
        assert number not in found, "answered twice"
        found[number] = response

    captioner.answer(requests, done)
    return [found[number] for number in range(len(requests))]


def captioner(stub, **changes):
    return EndpointCaptioner([stub.url], "stub", **{"retries": 4, "call_seconds": 5.0} | changes)


def test_what_is_sent(tmp_path):
    (tmp_path / "key").write_text("secret\n")
    with StubEndpoint() as stub:
        (response,) = ask(captioner(stub, key_file=str(tmp_path / "key")), [request()])
    assert stub.headers[0]["Authorization"] == "Bearer secret"
    assert response.text.startswith('{"1": "A person') and response.finish == "stop"
    assert (response.input_tokens, response.output_tokens) == (90, 30)
    ((name, _, body),) = stub.calls
    assert name == request().key("stub")
    assert (body["seed"], body["model"], body["max_tokens"], body["temperature"]) == (7, "stub", 1024, 0.7)
    first, _, words = body["messages"][0]["content"]
    assert words == {"type": "text", "text": "Describe it."}
    assert base64.b64decode(first["image_url"]["url"].removeprefix("data:image/jpeg;base64,")) == b"\xff\xd8one"
    assert body["response_format"]["json_schema"]["schema"] == VIDEO_CAPTIONS.schema


@pytest.mark.parametrize("faults", [["429", "429"], ["500"], ["drop"], ["not-a-completion"], ["slow"]], ids=str)
def test_it_tries_again(faults):
    with StubEndpoint(faults, slow=0.6) as stub:
        (response,) = ask(captioner(stub, call_seconds=0.3), [request()])
    assert not response.error and response.text
    assert [fault for _, fault, _ in stub.calls] == [*faults, "ok"]


def test_retry_after_is_kept_to():
    with StubEndpoint(["429"], retry_after=0.7) as stub:
        start = time.monotonic()
        ask(captioner(stub), [request()])
    assert time.monotonic() - start >= 0.7
    assert retry_after("3") == 3 and retry_after(None) is None and retry_after("soon") is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0 and retry_after("99999") == 300


def test_errors_that_stay_are_named():
    with StubEndpoint(["500"] * 9) as stub:
        (response,) = ask(captioner(stub, retries=1), [request()])
    assert (response.error, response.retryable) == ("http-500: injected", True)
    with StubEndpoint(["418"]) as stub:
        (response,) = ask(captioner(stub), [request()])
    assert (response.error, response.retryable, len(stub.calls)) == ("http-418: injected", True, 1)
    with StubEndpoint() as stub:
        down = captioner(stub, retries=1)
    (response,) = ask(down, [request()])  # nobody listens there any more
    assert (response.error, response.retryable) == ("connection", True)


def test_the_deadline_covers_all_retries():
    with StubEndpoint(["429"] * 99, retry_after=0.2) as stub:
        start = time.monotonic()
        (response,) = ask(captioner(stub, deadline=0.5, retries=99), [request()])
    assert (response.error, response.retryable) == ("deadline", True)
    assert time.monotonic() - start < 2


def test_a_server_that_comes_back():
    with StubEndpoint() as stub:
        port = stub.server.server_address[1]
    late = StubEndpoint(port=port)
    timer = threading.Timer(1.2, late.__enter__)
    timer.start()
    try:
        (response,) = ask(EndpointCaptioner([stub.url], "stub"), [request()])
    finally:
        timer.join()
        late.__exit__()
    assert response.text and len(late.calls) == 1


def test_the_default_retries_outlast_half_a_minute():
    least = sum(min(30, 0.25 * 2**attempt) * 0.5 for attempt in range(EndpointCaptioner(["http://x/v1"], "m").retries))
    assert least >= 30


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


def test_a_request_that_is_wrong_by_itself_keeps_the_schema_for_the_others():
    with StubEndpoint(["400", "400"], shared=True) as stub:
        wrong, right = ask(captioner(stub, in_flight=1), [request(0), request(1)])
    assert wrong.error == "http-400: injected" and right.text
    assert ["response_format" in body for _, _, body in stub.calls] == [True, False, True]


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
    with StubEndpoint(["500"] * 9) as stub, Journal(tmp_path / "other") as journal:
        assert answer_once(captioner(stub, retries=0), requests[:1], journal)[0].error == "http-500: injected"
        assert len(journal) == 0, "an error is asked for again"


def test_a_key_is_all_that_the_answer_depends_on():
    keys = {request().key("stub"), request(1).key("stub"), request().key("other"), request(seed=8).key("stub")}
    keys |= {
        request(turns=(Turn("user", "Describe it.", (b"other",)),)).key("stub"),
        request(max_tokens=9).key("stub"),
    }
    assert len(keys) == 6
    assert request().key("stub") == request().key("stub")


def test_completions_of_another_shape():
    for other in ("text", None, [], {}, {"choices": None}, {"choices": [None]}, {"choices": [{"message": None}]}):
        assert read_completion(other) is None
    assert read_completion({"choices": [{"message": {"content": "x"}, "finish_reason": "length"}]}) == Response(
        "x", "length"
    )


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
    response = read_completion({"choices": [{"message": {"content": "x"}}], "usage": usage})
    assert (response.input_tokens, response.output_tokens) == counts
    assert all(type(count) is int for count in counts)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("error-object", "server-error: no endpoints that support image input"),
        ("refusal", "no-answer: I see a face"),
        ("empty", "no-answer: content is empty, finish_reason stop"),
        ("cut-thinking", "no-answer: thinking took all max_tokens"),
        ("cut-thinking-apart", "no-answer: thinking took all max_tokens"),
    ],
)
def test_what_asking_again_would_not_change_costs_one_call(fault, error):
    with StubEndpoint([fault] * 9) as stub:
        (response,) = ask(captioner(stub), [request()])
    assert response.error.startswith(error) and response.retryable
    assert len(response.error) <= 220 and len(stub.calls) == 1


def test_an_error_object_may_say_that_the_server_is_busy():
    with StubEndpoint(["busy-object"]) as stub:
        (response,) = ask(captioner(stub), [request()])
    assert response.text and [fault for _, fault, _ in stub.calls] == ["busy-object", "ok"]
    with StubEndpoint(["busy-object"] * 9) as stub:
        (response,) = ask(captioner(stub, retries=1), [request()])
    assert response.error.startswith("http-503: no endpoints")


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


def test_halves_of_letters_do_not_reach_the_journal(tmp_path):
    with StubEndpoint(answer=lambda body: {"1": "a dog \ud83d"}) as stub, Journal(tmp_path) as journal:
        (response,) = answer_once(captioner(stub), [request()], journal)
    assert parse_texts(response.text, VIDEO_CAPTIONS.schema).texts == {"1": "a dog ?"}
    assert read_completion({"choices": [{"message": {"content": "a \ud83d"}}]}).text == "a ?"


@pytest.mark.parametrize("kept", [{"text": None}, {"text": "x", "of_another_version": 1}, "text", ["text"]])
def test_what_is_no_answer_in_a_journal_is_asked_for_again(tmp_path, kept):
    with StubEndpoint() as stub, Journal(tmp_path) as journal:
        journal.add(request().key("stub"), kept)
        (response,) = answer_once(captioner(stub), [request()], journal)
    assert response.text.startswith('{"1"') and len(stub.calls) == 1


def test_an_answer_without_counts_in_a_journal_is_an_answer(tmp_path):
    with Journal(tmp_path) as journal:
        journal.add(request().key("stub"), {"text": "x", "finish": "stop", "input_tokens": None, "output_tokens": 4.0})
        assert answer_once(EndpointCaptioner(["http://127.0.0.1:1/v1"], "stub"), [request()], journal) == [
            Response("x", "stop", 0, 4)
        ]


@pytest.mark.parametrize(("changes", "match"), [({"urls": ["host:80"]}, "urls must"), ({"urls": []}, "urls must")])
def test_wrong_urls(changes, match):
    with pytest.raises(ValueError, match=match):
        EndpointCaptioner(model="stub", **changes)


def test_wrong_numbers():
    with pytest.raises(ValueError, match="in_flight must be positive, got 0"):
        EndpointCaptioner(["http://127.0.0.1:1/v1"], "stub", in_flight=0)
