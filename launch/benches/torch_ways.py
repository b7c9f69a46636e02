"""A process that trains the benchmark's networks in PyTorch, driven by JSON lines over stdin and stdout.

    {"do": "load", "path": "case.npz"}                     reads rows, order, initial weights
    {"do": "run", "way": "memory", "threads": 1, "members": 16}    one epoch -> {"cpu_seconds": ..., "losses": ...}

It runs without JAX, so that neither library's threads disturb the other's and DataLoader may fork. Ways: `loader`
(DataLoader with two workers over a Subset, one model after another, as published scripts do), `memory` (tensors in
memory, one model after another) and `func` (all models at once by torch.func). Each keeps its models between epochs.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils import data

BATCH_WORKERS = 2
Epoch = Callable[[int], list[list[float]]]  # number of members -> losses [members][steps]


def network(case: dict[str, np.ndarray], member: int) -> nn.Module:
    """Builds the network of one member from the shapes of its weights and loads them.

    3x3 convolutions with ReLU, a max pool of 2, dense layers with ReLU after convolutions and tanh otherwise.
    """
    layers: list[nn.Module] = []
    channels, size = 0, 0
    convolutions = sorted(name for name in case if name.startswith("Conv") and name.endswith("kernel"))
    for name in convolutions:
        kernel = case[name][member]  # [3, 3, C, O]
        layer = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
        _fill(layer, kernel.transpose(3, 2, 0, 1), case[name.replace("kernel", "bias")][member])
        layers += [layer, nn.ReLU()]
        channels, size = kernel.shape[3], case["inputs"].shape[1] // 2
    layers += [nn.MaxPool2d(2), nn.Flatten()] if convolutions else []
    dense = sorted(name for name in case if name.startswith("Dense") and name.endswith("kernel"))
    for i, name in enumerate(dense):
        kernel = case[name][member]  # [F, O]
        if i == 0 and convolutions:  # features come channels last there and channels first here
            kernel = kernel.reshape(size, size, channels, -1).transpose(2, 0, 1, 3).reshape(len(kernel), -1)
        layer = nn.Linear(*kernel.shape)
        _fill(layer, kernel.T, case[name.replace("kernel", "bias")][member])
        layers += [layer, nn.ReLU() if convolutions else nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _fill(layer: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
    layer.load_state_dict({"weight": torch.tensor(weight.copy()), "bias": torch.tensor(bias.copy())})


def optimizer(case: dict[str, np.ndarray], parameters: Any, fused: bool = True) -> torch.optim.Optimizer:
    """Returns SGD with the case's recipe; fused (10 % faster) wherever a tuned script would use that."""
    rate, momentum, decay = (float(case[name]) for name in ("learning_rate", "momentum", "weight_decay"))
    return torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=decay, fused=fused or None)


def tensors(case: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns rows (pictures channels first) and labels."""
    inputs = case["inputs"]
    if inputs.ndim == 4:
        inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    return torch.tensor(inputs), torch.tensor(case["labels"], dtype=torch.int64)


def sequential(case: dict[str, np.ndarray], through_loader: bool) -> Epoch:
    """Trains one model after another, with batches from tensors in memory or from a DataLoader."""
    inputs, labels = tensors(case)
    order = torch.tensor(case["order"], dtype=torch.int64)  # [M, steps, B]
    networks = [network(case, member) for member in range(len(order))]
    optimizers = [optimizer(case, model.parameters(), fused=not through_loader) for model in networks]

    def from_memory(member: int) -> Any:
        return ((inputs[rows], labels[rows]) for rows in order[member])

    def from_loader(member: int) -> Any:
        rows = np.sort(case["order"][member].ravel())
        positions = np.searchsorted(rows, case["order"][member].ravel()).tolist()
        subset = data.Subset(data.TensorDataset(inputs, labels), rows.tolist())
        return data.DataLoader(subset, order.shape[2], sampler=positions, num_workers=BATCH_WORKERS)

    def epoch(members: int) -> list[list[float]]:
        losses = []
        for member in range(min(members, len(order))):
            step_losses = []
            for batch, batch_labels in (from_loader if through_loader else from_memory)(member):
                optimizers[member].zero_grad()
                loss = functional.cross_entropy(networks[member](batch), batch_labels)
                loss.backward()
                optimizers[member].step()
                step_losses.append(loss.detach())
            losses.append(torch.stack(step_losses).tolist())
        return losses

    return epoch


def ensemble(case: dict[str, np.ndarray]) -> Epoch:
    """Trains all models at once: gradients by `vmap(grad)` over stacked parameters, one optimizer for the stacks."""
    inputs, labels = tensors(case)
    order = torch.tensor(case["order"], dtype=torch.int64)
    stacked, _ = torch.func.stack_module_state([network(case, member) for member in range(len(order))])
    single = network(case, 0)
    step_all = optimizer(case, stacked.values())

    def objective(parameters: dict[str, torch.Tensor], batch: torch.Tensor, batch_labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(torch.func.functional_call(single, parameters, (batch,)), batch_labels)

    gradients_of_all = torch.func.vmap(torch.func.grad_and_value(objective))

    def epoch(members: int) -> list[list[float]]:
        del members  # always all of them
        losses = []
        for rows in order.swapaxes(0, 1):
            parameters = {name: value.detach() for name, value in stacked.items()}
            gradients, loss = gradients_of_all(parameters, inputs[rows], labels[rows])
            for name, value in stacked.items():
                value.grad = gradients[name]
            step_all.step()
            losses.append(loss)
        return torch.stack(losses).T.tolist()

    return epoch


def make(case: dict[str, np.ndarray], way: str) -> Epoch:
    """Returns the epoch of a way to train, with fresh models."""
    return ensemble(case) if way == "func" else sequential(case, way == "loader")


def cpu_seconds() -> float:
    """Returns the CPU time of this process and of its finished children (DataLoader workers)."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def serve() -> None:
    """Answers requests until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of libraries must not mix with the answers
    torch.set_flush_denormal(True)  # long runs on few rows must not slow down for tiny momenta
    case: dict[str, np.ndarray] = {}
    epochs: dict[str, Epoch] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {"torch": torch.__version__}
        if request["do"] == "load":
            with np.load(request["path"]) as content:
                case = dict(content)
            epochs = {}
        else:
            torch.set_num_threads(request["threads"])
            if request["way"] not in epochs:
                epochs[request["way"]] = make(case, request["way"])
            start = cpu_seconds()
            answer["losses"] = epochs[request["way"]](request["members"])
            answer["cpu_seconds"] = cpu_seconds() - start
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
