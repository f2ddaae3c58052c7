"""What transformers, peft and scikit-learn make of the same language model with the same labelled texts."""

import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.models.bert.modeling_bert import BertForSequenceClassification, BertModel
from transformers.utils import logging

from app.cli.zoo import fetch
from tests.benchmarks.peers import Figures, Subject, judged
from tests.benchmarks.training_peers import SEED, spec_of, updates
from workers.compression.specs.containers.archives import stored_zip
from workers.compression.specs.steps.finetune import LoraFinetune
from workers.compression.specs.training import TrainingStep

MODEL = "minilm-l6-hf"
MAX_TOKENS = 128
FULL_RATE = 1e-4
LORA_RATE = 1e-3
Labelled = tuple[list[str], list[int]]
Feeds = dict[str, torch.Tensor]


def texts_of(path: Path | None) -> Labelled:
    """Texts and class indices of a JSON lines file, classes in sorted order."""
    if path is None:
        raise ValueError("this peer learns from rows")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    classes = sorted({row["target"] for row in rows})
    return [row["text"] for row in rows], [classes.index(row["target"]) for row in rows]


class Collator:
    """Rows to padded feeds, with the model's own tokenizer."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(str(fetch(MODEL) / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()

    def __call__(self, rows: list[dict[str, object]]) -> Feeds:
        """Feeds of some rows of ``text`` and ``label``."""
        return self.encoded([str(row["text"]) for row in rows]) | {
            "labels": torch.tensor([row["label"] for row in rows])
        }

    def encoded(self, texts: list[str]) -> Feeds:
        """Feeds of some texts."""
        made = self._tokenizer.encode_batch(texts)
        return {
            "input_ids": torch.tensor([row.ids for row in made]),
            "attention_mask": torch.tensor([row.attention_mask for row in made]),
        }


def trainer_full(subject: Subject) -> Figures:
    """transformers' ``Trainer`` on all weights of ``BertForSequenceClassification``."""
    network = classifier(subject)
    train(network, texts_of(subject.train), spec_of(subject), subject.folder, FULL_RATE)
    return _stored(subject, network)


def peft_lora(subject: Subject) -> Figures:
    """peft's LoRA on every linear layer of the blocks, trained by ``Trainer``, merged at the end."""
    spec = spec_of(subject)
    if not isinstance(spec, LoraFinetune):
        raise TypeError(f"{spec.key()} is not LoRA")
    adapted = with_lora(classifier(subject), spec.rank, spec.alpha)
    train(adapted, texts_of(subject.train), spec, subject.folder, LORA_RATE)
    return _stored(subject, adapted.merge_and_unload())


def with_lora(network: nn.Module, rank: int, alpha: float) -> nn.Module:
    """Updates of rank ``rank`` beside every linear layer of the blocks; the classifier learns whole."""
    layers = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear) and ".encoder." in name]
    return get_peft_model(
        network, LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, modules_to_save=["classifier"])
    )


def sklearn_probe(subject: Subject) -> Figures:
    """scikit-learn's logistic regression on the frozen pooler's output, put in as the classifier's weights."""
    texts, labels = texts_of(subject.train)
    network = classifier(subject)
    found = LogisticRegression(max_iter=5000, C=1.0).fit(pooled(network.bert, texts), labels)
    with torch.no_grad():
        network.classifier.weight.copy_(torch.tensor(np.concatenate((-found.coef_, found.coef_)) / 2))
        network.classifier.bias.copy_(torch.tensor(np.concatenate((-found.intercept_, found.intercept_)) / 2))
    return _stored(subject, network)


def output_distance(subject: Subject) -> Figures:
    """The student's last hidden states drawn to the original's by squared error, in a plain loop."""
    if subject.student is None or subject.train is None:
        raise ValueError("this peer teaches a student")
    spec, collator = spec_of(subject), Collator()
    texts = [json.loads(line)["text"] for line in subject.train.read_text("utf-8").splitlines()]
    with zipfile.ZipFile(subject.student) as archive:
        archive.extractall(subject.folder / "peer")
    network = BertModel.from_pretrained(subject.folder / "peer", add_pooling_layer=False).eval()
    teacher = BertModel.from_pretrained(fetch(MODEL), add_pooling_layer=False).eval()
    for rows in updates(network, len(texts), spec):
        feeds = collator.encoded([texts[row] for row in rows])
        with torch.no_grad():
            wanted = teacher(**feeds).last_hidden_state
        kept = feeds["attention_mask"].bool()
        nn.functional.mse_loss(network(**feeds).last_hidden_state[kept], wanted[kept]).backward()
    network.eval().save_pretrained(subject.folder / "peer")
    stored_zip(subject.folder / "peer", subject.folder / "peer.zip")
    return judged(subject, subject.folder / "peer.zip")


def pooled(body: BertModel, texts: list[str]) -> np.ndarray:
    """The pooler's output [n, hidden] of each text, as a classifier gets it."""
    collator = Collator()
    order = np.argsort([len(text) for text in texts])
    made = np.empty((len(texts), body.config.hidden_size), np.float32)
    with torch.inference_mode():
        for rows in np.array_split(order, -(-len(order) // 64)):
            made[rows] = body(**collator.encoded([texts[row] for row in rows])).pooler_output.numpy()
    return made


def classifier(subject: Subject) -> BertForSequenceClassification:
    """The pretrained body with a fresh last layer of one output per class."""
    logging.set_verbosity_error()
    torch.manual_seed(SEED)
    classes = len(set(texts_of(subject.train)[1]))
    return BertForSequenceClassification.from_pretrained(fetch(MODEL), num_labels=classes).eval()


def train(network: nn.Module, rows: Labelled, spec: TrainingStep, folder: Path, rate: float) -> None:
    """``Trainer`` with the step's epochs, batches, rate, schedule and seed."""
    texts, labels = rows
    total = max(1, round(spec.epochs * -(-len(texts) // spec.batch_size)))
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=spec.batch_size,
        learning_rate=spec.learning_rate or rate,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_gradient_norm,
        lr_scheduler_type=spec.schedule,
        warmup_steps=round(spec.warmup * total),
        seed=SEED,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    examples = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    Trainer(model=network, args=arguments, train_dataset=examples, data_collator=Collator()).train()
    network.eval()


def _stored(subject: Subject, network: BertForSequenceClassification) -> Figures:
    folder = subject.folder / "peer"
    network.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((fetch(MODEL) / name).read_bytes())
    stored_zip(folder, subject.folder / "peer.zip")
    return judged(subject, subject.folder / "peer.zip")
