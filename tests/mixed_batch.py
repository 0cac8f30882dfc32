"""A batch whose rows and sides share media of every kind, and what tests of its gradients have in common."""

import torch
from datasets import load_from_disk
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from gve import lora_config
from gve.hub_datasets.schema import media
from gve.trainers import CachedGVELoss, PairCollator

OPTIONS = {"temperature": 0.2, "false_negative_margin": 0.3}


def mixed_rows(tasks):
    """Queries and targets of every kind, media that several rows and sides show, and texts of unlike length."""
    videos = [row["target"]["video"]["bytes"] for row in tasks["t2v"].select(range(4))]
    image = tasks["i2v"][0]["query"]["image"]["bytes"]
    sides = [
        (media(text="a red square"), media(video=videos[0]), media(video=videos[1])),
        (media(text="the square moves", image=image), media(video=videos[1]), media(text="nothing moves here")),
        (media(text="a blue square moves 4 " * 5, video=videos[2]), media(text="grey"), media(image=image)),
        (media(video=videos[0]), media(image=image, video=videos[3]), media(video=videos[3])),
        (media(text="green"), media(text="a green square moves 2"), media(image=image)),
    ]
    rows = []
    for number, (query, target, negative) in enumerate(sides):
        row = {"id": f"m{number}", "query": query, "target": target, "negatives": [negative], "query_facts": []}
        rows.append(tasks["t2v"][0] | row)
    return rows


def columns_of(batch):
    return SentenceTransformerTrainer.collect_features(None, batch)


def step(model, loss, batch):
    model.zero_grad()
    columns, labels = columns_of(batch)
    value = loss(columns, labels)
    (value / 3).backward()  # as accelerate divides it while gradients accumulate
    return value.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def distance(got, expected):
    """The distance of all gradients from the expected ones, by their length."""
    assert got.keys() == expected.keys() and got
    apart = torch.stack([(got[name] - expected[name]).norm() for name in expected])
    return (apart.norm() / torch.stack([grad.norm() for grad in expected.values()]).norm()).item()


def adapted(model, dropout):
    torch.manual_seed(1)
    inner = model[0].model
    inner.requires_grad_(False)
    model.add_adapter(lora_config(r=4, lora_alpha=8, lora_dropout=dropout))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # they begin at zero, which would hide half of the gradient
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def rows_of_two(tasks, trained):
    """Four rows for each of two processes; where the tower goes unused, the first process has texts alone."""
    rows = mixed_rows(tasks)
    rows = [*rows[:4], *(row | {"query_facts": []} for row in tasks["t2v"].select(range(5, 9)))]
    if trained == "all-unused":
        for row in rows[:4]:
            query, target, negative = (media(text=f"{row['id']} {side}") for side in ("query", "target", "negative"))
            row |= {"query": query, "target": target, "negatives": [negative]}
    return rows


def model_of(folder, trained):
    """In twice the width: fp32 gradients are themselves 1e-6 from exact ones."""
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float64})
    if trained == "adapters":
        return adapted(model, 0.0)
    for weight, parameter in model[0].model.named_parameters():
        parameter.requires_grad_(trained != "vision" or weight.startswith("visual."))
    return model.train()


def cached_gradients(run, report):
    """What one of two processes computes: two steps, and one of two micro-batches; for `training_runs.launch`."""
    distributed.init_process_group("gloo")
    rank, trained = distributed.get_rank(), run.settings["trained"]
    model = model_of(run.model, trained)
    wrapped = DistributedDataParallel(model, find_unused_parameters=trained == "all-unused")
    loss = CachedGVELoss(wrapped, cache_tokens=run.settings["cache_tokens"], gather_across_devices=True, **OPTIONS)
    collator = PairCollator(model.processor, num_negatives=1, share_media=True)
    batch = columns_of(collator(rows_of_two(load_from_disk(run.tasks), trained)[4 * rank : 4 * rank + 4]))
    got = []
    for micro in (1, 1, 2):
        model.zero_grad()
        with wrapped.no_sync():
            for _ in range(micro - 1):
                loss(*batch).backward()
        value = loss(*batch)
        value.backward()
        got.append({name: p.grad / micro for name, p in model.named_parameters() if p.grad is not None})
    torch.save((value.item(), got), report)
