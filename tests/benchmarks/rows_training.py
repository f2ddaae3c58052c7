"""The evidence's rows of steps that train."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune

from app.cli.zoo import fetch
from tests.benchmarks import inputs
from tests.benchmarks.rows import MINILM, WORDS, Row
from tests.benchmarks.text_training_peers import output_distance, peft_lora
from tests.benchmarks.training_inputs import (
    digits_of,
    fit,
    lenet,
    reviews,
    student,
    write_digits,
    write_pt2,
    write_reviews,
)
from tests.benchmarks.training_peers import features_probe, hinton, plain_transfer, pruned_and_retrained
from tests.benchmarks.training_runs import STUDENT
from workers.compression.specs.containers.archives import stored_zip

KNOWN, NEW, DIGITS = range(5), range(5, 10), range(10)
NEW_ROWS, FEW_ROWS, MANY_ROWS = 200, 500, 5000
REVIEWS = 1000
SPARSITY = 0.95
KEPT_LAYERS = (0, 2, 5)

FULL: dict[str, Any] = {
    "technique": "finetune", "method": "full", "head": "replace", "epochs": 5, "batch_size": 4, "learning_rate": 4e-3,
    "validation": 0.0,
}  # fmt: skip
HEAD: dict[str, Any] = FULL | {"method": "head", "epochs": 200, "batch_size": 32, "learning_rate": 2e-2}
LORA: dict[str, Any] = {
    "technique": "finetune", "method": "lora", "epochs": 2, "learning_rate": 1e-3, "validation": 0.0,
}  # fmt: skip
RECOVER: dict[str, Any] = {
    "technique": "finetune", "method": "recover", "epochs": 5, "learning_rate": 2e-3, "validation": 0.0,
}  # fmt: skip
LOGITS: dict[str, Any] = {
    "technique": "distill", "method": "logits", "student": STUDENT, "temperature": 4.0, "epochs": 60,
    "learning_rate": 5e-3, "validation": 0.0,
}  # fmt: skip
FEATURES: dict[str, Any] = {
    "technique": "distill", "method": "features", "student": STUDENT, "epochs": 1, "learning_rate": 1e-4,
    "validation": 0.0,
}  # fmt: skip


@lru_cache
def _trained(digits: range) -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a network gains nothing from a second one
    return fit(lenet(len(digits)), digits_of("train", digits), epochs=4, seed=0)


def _known(folder: Path) -> Path:
    return write_pt2(_trained(KNOWN), folder / "lenet.pt2")


def _all(folder: Path) -> Path:
    return write_pt2(_trained(DIGITS), folder / "lenet.pt2")


def _pruned(folder: Path) -> Path:
    network = lenet(len(DIGITS))
    network.load_state_dict(_trained(DIGITS).state_dict())
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            prune.l1_unstructured(layer, "weight", SPARSITY)
            prune.remove(layer, "weight")
    return write_pt2(network, folder / "pruned.pt2")


def _student(folder: Path) -> Path:
    torch.manual_seed(0)
    return write_pt2(student(len(DIGITS)), folder / "student.pt2")


def _half_of_minilm(folder: Path) -> Path:
    """Every other layer of all-MiniLM-L6-v2 as a model of its own, zipped."""
    known, target = fetch("minilm-l6-hf"), folder / "half"
    target.mkdir()
    config = json.loads((known / "config.json").read_text("utf-8")) | {"num_hidden_layers": len(KEPT_LAYERS)}
    (target / "config.json").write_text(json.dumps(config), "utf-8")
    (target / "tokenizer.json").write_bytes((known / "tokenizer.json").read_bytes())
    kept = {}
    for name, values in load_file(known / "model.safetensors").items():
        before, found, after = name.partition("encoder.layer.")
        number, _, rest = after.partition(".")
        if not found:
            kept[name] = values
        elif int(number) in KEPT_LAYERS:
            kept[f"{before}{found}{KEPT_LAYERS.index(int(number))}.{rest}"] = values
    save_file(kept, target / "model.safetensors")
    stored_zip(target, folder / "half.zip")
    return folder / "half.zip"


def _sentences(folder: Path) -> Path:
    path = folder / "sentences.jsonl"
    lines = (json.dumps({"text": text}) for text, _ in reviews()[0][:REVIEWS])
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


ROWS = (
    Row(
        FULL, "LeNet-5 trained on MNIST digits 0-4, pt2", _known, f"MNIST digits 5-9, {NEW_ROWS} training rows",
        lambda folder: write_digits(folder, NEW, NEW_ROWS).test, "accuracy", "plain PyTorch, same epochs",
        plain_transfer, write_train=lambda folder: write_digits(folder, NEW, NEW_ROWS).train,
    ),
    Row(
        HEAD, "LeNet-5 trained on MNIST digits 0-4, pt2", _known, f"MNIST digits 5-9, {NEW_ROWS} training rows",
        lambda folder: write_digits(folder, NEW, NEW_ROWS).test, "accuracy",
        "scikit-learn LogisticRegression on the frozen features", features_probe,
        write_train=lambda folder: write_digits(folder, NEW, NEW_ROWS).train,
    ),
    Row(
        LORA, f"{MINILM}, Hugging Face", inputs.minilm_directory, f"Rotten Tomatoes, {REVIEWS} training rows",
        lambda folder: write_reviews(folder, REVIEWS, REVIEWS).test, "accuracy",
        "peft LoRA, transformers Trainer, same rank and epochs", peft_lora,
        write_train=lambda folder: write_reviews(folder, REVIEWS, REVIEWS).train,
    ),
    Row(
        RECOVER, f"LeNet-5 on MNIST, {SPARSITY:.0%} of each layer pruned, pt2", _pruned,
        f"MNIST, {MANY_ROWS} training rows", lambda folder: write_digits(folder, DIGITS, MANY_ROWS).test, "accuracy",
        "torch.nn.utils.prune masks, plain training, same epochs", pruned_and_retrained,
        write_train=lambda folder: write_digits(folder, DIGITS, MANY_ROWS).train,
    ),
    Row(
        LOGITS, "LeNet-5 on MNIST into a student of 2,202 weights, pt2", _all, f"MNIST, {FEW_ROWS} training rows",
        lambda folder: write_digits(folder, DIGITS, FEW_ROWS).test, "accuracy",
        "plain loop of Hinton et al., same student and epochs", hinton,
        write_train=lambda folder: write_digits(folder, DIGITS, FEW_ROWS).train, write_student=_student,
    ),
    Row(
        FEATURES, f"{MINILM} into 3 of its 6 layers, Hugging Face", inputs.minilm_directory,
        f"{WORDS}; {REVIEWS} review texts without labels", inputs.word_pairs, "spearman",
        "distance of the last hidden state alone, same student and epochs", output_distance,
        write_train=_sentences, write_student=_half_of_minilm,
    ),
)  # fmt: skip
