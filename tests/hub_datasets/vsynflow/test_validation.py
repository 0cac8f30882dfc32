"""Prompts, drawn profiles, and every rule that an answer must keep."""

import json
from collections import Counter

import pytest
from stub_endpoint import WORDS

from gve.hub_datasets.vsynflow import prompts
from gve.hub_datasets.vsynflow.validation import check_captions, check_query, correction, parse_texts


def codes(texts, kind="video"):
    schema = prompts.PROMPTS[kind].schema
    answer = texts if isinstance(texts, str) else json.dumps(texts)
    return {(violation.code, violation.key) for violation in check_captions(answer, schema, kind).violations}


def query_codes(text, reference="image"):
    schema = (prompts.IMAGE_QUERY if reference == "image" else prompts.CLIP_QUERY).schema
    return {violation.code for violation in check_query(json.dumps({"query": text}), schema, reference).violations}


def test_a_right_answer_passes():
    assert codes(WORDS) == codes(WORDS, "frame") == set()
    assert codes(f"```json\n{json.dumps(WORDS)}\n```") == set()


@pytest.mark.parametrize(
    "answer",
    [
        '<think>\nFirst {"1": "a draft"}.\n</think>\n\n%s',
        "I look at {frames}.\n</think>%s",
        "<think>No end, but then %s",
        "[THINK]hm[/THINK]%s",
        "<thinking>{}</thinking>%s",
        "\ufeff```JSON\n%s\n```",
        "```\n%s",
        "Sure {again}! %s\nAnything else?",
        "%s\nOnce more: %s",
        "<|begin_of_box|>%s<|end_of_box|>",
    ],
)
def test_what_stands_around_an_answer_is_taken_off(answer):
    assert codes(answer.replace("%s", json.dumps(WORDS))) == set()


def test_spaces_are_tidied_and_marks_of_thoughts_within_a_caption_stay():
    caption = "A person  writes </think> with chalk on a wide and dark green board. "
    found = parse_texts(json.dumps({"1": caption}), prompts.VIDEO_CAPTIONS.schema).texts
    assert found == {"1": " ".join(caption.split())}
    assert parse_texts('{"1": "a dog \\ud83d"}', prompts.VIDEO_CAPTIONS.schema).texts == {"1": "a dog ?"}


@pytest.mark.parametrize(
    ("key", "text", "code"),
    [
        ("1", "A person walks a dog.", "words"),
        ("2", "word " * 201, "words"),
        ("2", "The same street is seen again. " * 14, "lengths"),
        ("4", "dog street morning red coat cars", "keywords"),
        ("5", "A person walks a dog without a lead along the long street.", "absence"),
        ("5", "There is no car in this part of the long quiet street.", "absence"),
        ("5", "A person who is probably tired walks along the long quiet street.", "speculation"),
        ("5", "A person walks " + "\u0433\u0443\u043b\u044f\u0435\u0442 " * 6, "english"),
        ("2", "Un hombre pasea con su perro por la calle mientras los coches esperan en la plaza. " * 7, "english"),
        ("5", WORDS["1"], "alike"),
        ("5", "The dog stops beside a lamp post.\nIt turns its head toward the person there.", "paragraph"),
        ("5", "x", "schema"),
        ("5", 7, "schema"),
    ],
)
def test_each_rule_has_a_name(key, text, code):
    found = codes({**WORDS, key: text})
    assert code in {name for name, _ in found}
    assert {place for name, place in found if name == code} <= {key, ""}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("Sure! {", "json"),
        ("", "json"),
        ("<think>" + json.dumps(WORDS) + "</think>", "json"),
        (json.dumps(WORDS)[:-1] + ",}", "json"),
        (str(WORDS), "json"),
        ("{" * 5000, "json"),
        ('[{"1":' * 3000, "json"),
        (f"First {json.dumps({'1': 'x'})}, better {json.dumps(WORDS)}", "json"),
        (json.dumps([WORDS]), "schema"),
        ("[1]", "schema"),
        ('{"1": "only one"}', "schema"),
        (json.dumps({**WORDS, "6": "x"}), "schema"),
    ],
)
def test_what_is_no_object_of_the_schema(answer, code):
    assert {name for name, _ in codes(answer)} == {code}


def test_a_caption_over_all():
    long = {**WORDS, "1": "word " * 22, "3": "word " * 40, "4": "one, " * 21, "5": "again " * 30}
    assert ("lengths", "") in codes(long)


@pytest.mark.parametrize(
    ("text", "reference", "code"),
    [
        ("the dog runs across a snowy field", "image", "binding"),
        ("the image but with something else", "image", "vague"),
        ("the scene of the image after 3 seconds", "image", "time"),
        ("the image", "image", "schema"),
        ("the image again " * 20, "image", "words"),
        ("after the clip it ends", "clip", None),
        ("what follows the clip", "clip", "words"),
        ("the clip " * 8, "clip", "words"),
        ("the dog of the image without a lead", "image", "absence"),
    ],
)
def test_rules_of_composed_queries(text, reference, code):
    assert query_codes(text, reference) == (set() if code is None else {code})


def test_the_repair_turn_names_what_is_wrong():
    checked = check_captions(
        json.dumps({**WORDS, "1": "A dog runs fast here."}), prompts.VIDEO_CAPTIONS.schema, "video"
    )
    assert '"1": 5 words came, 10 to 25 are wanted' in correction(checked.violations)


def test_prompts_hold_what_was_drawn():
    profile = prompts.draw_profile("v1", "video", 0)
    text = prompts.caption_text(prompts.VIDEO_CAPTIONS, prompts.VIDEO_STYLES, profile, "a weak {title}", "8 frames")
    assert "a weak {title}" in text and "8 frames in order" in text and profile.readability in text
    assert '- "2", 80 to 200 words' in text and '"2" has more than 100' in text
    profile = prompts.draw_profile("v1", "frame", 0)
    assert '"2", 50 to 200 words' in prompts.caption_text(
        prompts.FRAME_CAPTIONS, prompts.FRAME_STYLES, profile, "a", "a frame"
    )
    assert '{"query": "..."}' in prompts.image_query_text("told", 8) and "5 to 15 words" in prompts.clip_query_text(
        "told", 4, 8
    )
    assert len({prompt.label for prompt in prompts.PROMPTS.values()}) == 4


def test_a_slot_without_value():
    with pytest.raises(ValueError, match=r"values of prompt video/1 must be .*got caption"):
        prompts.VIDEO_CAPTIONS.fill(caption="a")


def test_profiles_have_the_paper_shares_and_repeat():
    drawn = [prompts.draw_profile(f"v{number}", "video", 0) for number in range(600)]
    counts = Counter(emphasis for profile in drawn for emphasis in profile.emphases)
    total = sum(counts.values())
    for name, share in {"spatial": 0.3, "temporal": 0.6, "other": 0.1}.items():
        assert abs(counts[name] / total - share) < 0.04  # five standard deviations are 0.045
    assert len({profile.chosen for profile in drawn}) == 5 and len({profile.readability for profile in drawn}) == 4
    assert drawn[:9] == [prompts.draw_profile(f"v{number}", "video", 0) for number in range(9)]
    assert drawn[0] != prompts.draw_profile("v0", "video", 1)
    assert "temporal" not in {e for n in range(50) for e in prompts.draw_profile(f"v{n}", "frame", 0).emphases}
