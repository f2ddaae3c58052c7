"""What torch-pruning makes of the same networks at the same number of multiply-accumulates."""

from collections.abc import Callable

import torch
import torch_pruning
from torch import nn
from transformers.models.bert.modeling_bert import BertModel

from tests.benchmarks.training_peers import Rows, distill
from workers.compression.specs.steps.distill import LogitsDistill
from workers.compression.specs.steps.finetune import RecoverFinetune

_STEPS = 40


def pruned(network: nn.Module, example: torch.Tensor, macs: float) -> nn.Module:
    """Channels by group norm over the whole network, in place, until ``macs`` of its multiply-accumulates are gone."""
    head = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    pruner = torch_pruning.pruner.MetaPruner(
        network, example, importance=torch_pruning.importance.GroupMagnitudeImportance(p=2), global_pruning=True,
        pruning_ratio=0.9, iterative_steps=_STEPS, ignored_layers=[head], round_to=8,
    )  # fmt: skip
    wanted = (1 - macs) * torch_pruning.utils.count_ops_and_params(network, example)[0]
    for _ in range(_STEPS):
        pruner.step()
        if torch_pruning.utils.count_ops_and_params(network, example)[0] <= wanted:
            break
    return network


def narrowed(network: BertModel, share: float) -> BertModel:
    """As many neurons less behind the attention of every block, by group norm, in place."""
    tokens = torch.ones(1, 8, dtype=torch.long)
    example = {"input_ids": tokens, "attention_mask": tokens}
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=example)
    importance, cut = torch_pruning.importance.GroupMagnitudeImportance(p=2), torch_pruning.prune_linear_out_channels
    for block in network.encoder.layer:
        layer = block.intermediate.dense
        order = importance(graph.get_pruning_group(layer, cut, list(range(layer.out_features)))).argsort()
        graph.get_pruning_group(layer, cut, order[: round(share * len(order))].tolist()).prune()
    return network


def recovered(network: nn.Module, teacher: nn.Module, rows: Rows, spec: RecoverFinetune) -> nn.Module:
    """As many epochs towards labels and the original, in a plain loop with the same schedule."""
    taught = LogitsDistill(
        epochs=spec.epochs, batch_size=spec.batch_size, learning_rate=spec.learning_rate, teacher=spec.teacher
    )
    distill(network, teacher, rows, taught)
    return network.eval()


Peer = Callable[[nn.Module], nn.Module]
