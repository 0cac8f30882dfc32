"""/v1/embeddings: every shape that people send gives the vectors of `encode`."""

import base64
import io

import numpy as np
import pytest
from langchain_openai import OpenAIEmbeddings
from openai import BadRequestError, NotFoundError, OpenAI
from other_models import clip_model, text_model
from PIL import Image
from serving import serving
from square_clips import frames_of, mp4_of, png_of

import gve
from gve.eval.endpoint import EndpointEncoder
from gve.eval.models import benchmark_encoder, load_encoder

CLIP = mp4_of(frames_of("red", 2, 1))
PICTURE = png_of(frames_of("blue", 1, 2)[0])
CLOSE = 1e-6
VIDEO = f"data:video/mp4;base64,{base64.b64encode(CLIP).decode()}"
IMAGE = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"


@pytest.fixture(scope="module")
def encoder():
    return gve.load_demo()


@pytest.fixture(scope="module")
def client(encoder):
    with serving(encoder) as client:
        yield client


def ask(client, **body):
    got = client.post("/v1/embeddings", json=body)
    assert got.status_code == 200, got.text
    return np.array([row["embedding"] for row in got.json()["data"]], np.float32)


def test_texts_by_the_official_client(client, encoder):
    texts = ["a red ball", "clip.mp4", "http://example.org/a.png", "word " * 300, "a\u00e9\U0001f600"]
    openai = OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0)
    expected = encoder.encode_document([{"text": text} for text in texts])
    for form in ("float", "base64", None):
        options = {} if form is None else {"encoding_format": form}
        got = openai.embeddings.create(model="tiny", input=texts, **options)
        rows = [row.embedding for row in got.data]
        if form == "base64":  # else the client decodes by itself
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        assert np.abs(np.array(rows) - expected).max() < CLOSE
    assert got.usage.prompt_tokens > 300
    (row,) = openai.embeddings.create(model="tiny", input="find", extra_body={"input_type": "query"}).data
    assert np.abs(row.embedding - encoder.encode_query("find")).max() < CLOSE
    assert [model.id for model in openai.models.list()] == ["tiny"]
    with pytest.raises(NotFoundError, match="must be 'tiny', got 'gpt'"):
        openai.embeddings.create(model="gpt", input="a")
    with pytest.raises(BadRequestError, match="got token ids"):
        openai.embeddings.create(model="tiny", input=[[1, 2]])


def test_langchain(client, encoder):
    chain = OpenAIEmbeddings(
        model="tiny", base_url=f"{client.base_url}/v1", api_key="none", check_embedding_ctx_length=False
    )
    assert np.abs(chain.embed_documents(["one", "two"]) - encoder.encode_document(["one", "two"])).max() < CLOSE
    assert np.abs(chain.embed_query("one") - encoder.encode_document("one")).max() < CLOSE


def test_items_and_dimensions(client, encoder, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(CLIP)
    items = [{"video": VIDEO}, "red", {"image": IMAGE}, {"text": "it", "image": IMAGE}, {"text": "t", "video": VIDEO}]
    picture = Image.open(io.BytesIO(PICTURE))
    same = [path, "red", picture, {"text": "it", "image": picture}, {"text": "t", "video": str(path)}]
    assert np.abs(ask(client, input=items) - encoder.encode_document(same)).max() < CLOSE
    assert np.abs(ask(client, input=items[0]) - encoder.encode_document([path])).max() < CLOSE
    told = ask(client, input=items, input_type="query", instruction="Find it.", dimensions=64)
    assert np.abs(told - encoder.encode_query(same, prompt="Find it.", truncate_dim=64)).max() < CLOSE


def test_messages_as_vllm_takes_them(client, encoder):
    picture = Image.open(io.BytesIO(PICTURE))
    content = [{"type": "image_url", "image_url": {"url": IMAGE}}, {"type": "text", "text": "it moves"}]
    chat = [{"role": "system", "content": "Find it."}, {"role": "user", "content": content}]
    chat += [{"role": "assistant", "content": [{"type": "text", "text": ""}]}]
    got = ask(client, messages=chat, continue_final_message=True, add_special_tokens=True)
    expected = encoder.encode_document([{"image": picture, "text": "it moves"}], prompt="Find it.")
    assert np.abs(got - expected).max() < CLOSE
    got = ask(client, messages=[{"role": "user", "content": [{"type": "video_url", "video_url": {"url": VIDEO}}]}])
    assert np.abs(got - encoder.encode_document([{"video": io.BytesIO(CLIP)}])).max() < CLOSE
    ours = EndpointEncoder(f"{client.base_url}/v1", images=True)
    assert (
        np.abs(ours.encode_query([{"image": picture, "text": "it moves"}], prompt="Find it.") - expected).max() < CLOSE
    )


def test_forms(client, encoder):
    files = {"video": ("clip.mp4", CLIP), "text": (None, "it moves"), "dimensions": (None, "32")}
    got = client.post("/v1/embeddings", files=files)
    expected = encoder.encode_document([{"video": io.BytesIO(CLIP), "text": "it moves"}], truncate_dim=32)
    assert np.abs(got.json()["data"][0]["embedding"] - expected[0]).max() < CLOSE
    for wrong, status in (({"clip": ("a", b"a")}, 400), ({"image": ("a", b"a")}, 400), ({"videos": (None, "a")}, 400)):
        assert client.post("/v1/embeddings", files=wrong).status_code == status


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": []}, "at least one input"),
        ({"input": [{}]}, r"input\[0\]: must hold text, image or video"),
        ({"input": ["a", {"image": 5}]}, r"input\[1\]\.image"),
        ({"input": "a", "dimension": 5}, "dimension: an unknown field"),
        ({"input": "a", "dimensions": 10_000}, "dimensions: must be at most"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "messages": []}, "either input or messages"),
        ({"messages": [{"role": "user", "content": []}]}, "must hold text, image or video"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "one of the user"),
        ({"input": ["a", {"video": "data:video/mp4;base64,!"}]}, r"input\[1\]: .*base64"),
        ({"input": [{"video": IMAGE}]}, r"input\[0\]: .*got the image"),
        ({"input": [{"image": VIDEO}]}, r"input\[0\]: .*got the video"),
        ({"input": ["a", {"image": IMAGE[:120]}]}, r"input\[1\]"),
        ({"input": "a", "instruction": "a" * 9000}, "instruction: String should have at most 8192"),
        ({"input": "a" * (1 << 21)}, r"input\[0\]\.text: String should have at most"),
        ({"input": ["a"] * 10_000}, "at most 2048, got 10000"),
    ],
)
def test_wrong_bodies_are_named(client, body, words):
    got = client.post("/v1/embeddings", json=body)
    assert got.status_code == 400
    with pytest.raises(ValueError, match=words):
        raise ValueError(got.json()["error"]["message"])


def test_other_families(tmp_path):
    for save, rows in ((text_model, ["find clip"]), (clip_model, ["find", {"image": IMAGE}, {"video": VIDEO}])):
        encoder = benchmark_encoder(load_encoder(str(save(tmp_path / save.__name__))))
        same = {"find clip": "find clip", "find": "find"}
        inputs = [same.get(row) if isinstance(row, str) else _opened(row) for row in rows]
        with serving(encoder) as client:
            assert np.abs(ask(client, input=rows) - encoder.encode_document(inputs)).max() < CLOSE
            if len(rows) == 1:
                got = client.post("/v1/embeddings", json={"input": [{"image": IMAGE}]})
                assert (got.status_code, "does not take image" in got.text) == (400, True)


def _opened(row):
    return {"image": Image.open(io.BytesIO(PICTURE))} if "image" in row else {"video": io.BytesIO(CLIP)}


def test_the_page_about_it(client):
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]
    assert body["application/json"]["schema"]["$ref"].endswith("/EmbeddingsBody")
    assert "input" in schema["components"]["schemas"]["EmbeddingsBody"]["properties"]
    assert client.get("/docs").status_code == 200
