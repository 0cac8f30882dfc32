"""Rows as chats, rendered by transformers, to compare with `prepare`."""

import numpy as np
import torch


def chat(row, system=None):
    content = []
    if isinstance(row, str):
        row = {"video": row} if row.endswith(".mp4") else {"text": row}
    for kind, value in row.items():
        several = isinstance(value, list) and kind != "text"
        content += [{"type": kind, kind: one} for one in (value if several else [value])]
    messages = [{"role": "user", "content": content}]
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, *messages] if system else messages


def rendered(processor, rows, system=None, **text_kwargs):
    return processor.apply_chat_template(
        [chat(row, system) for row in rows],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        sanitize_control_tokens=True,
        processor_kwargs={"text_kwargs": {"padding": True, "truncation": True, "max_length": 8192, **text_kwargs}},
    )


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for key in ours:
        assert ours[key].dtype == theirs[key].dtype and torch.equal(ours[key], theirs[key]), key


@torch.no_grad()
def vectors(model, processor, rows, dim=None, **kwargs):
    return model(**processor.prepare(rows, **kwargs), truncate_dim=dim).embeddings.numpy()


def far(left, right):
    assert np.asarray(left).shape == np.asarray(right).shape
    return np.abs(np.asarray(left) - np.asarray(right)).max()
