"""PyTorch on the same device: ResNet-18 on CIFAR shapes, in a slow, common way and in the fastest ones.

It runs in a separate process: nothing here imports JAX. Ways: `loader` (DataLoader with flip and crop per picture,
float32, one model, as in published scripts), `memory` (pictures on the device, channels last, bfloat16), `compiled`
(the same under torch.compile with CUDA graphs), `func` (all models at once by torch.func, bfloat16).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils import data

from ..timing import value_row
from . import clock

Row = dict[str, Any]
LOADER_WORKERS = 4


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut."""

    def __init__(self, channels: int, new_channels: int, stride: int) -> None:
        """Builds layers from `channels` to `new_channels`."""
        super().__init__()
        self.conv_0 = nn.Conv2d(channels, new_channels, 3, stride, 1, bias=False)
        self.norm_0 = nn.BatchNorm2d(new_channels)
        self.conv_1 = nn.Conv2d(new_channels, new_channels, 3, 1, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(new_channels)
        self.shortcut = nn.Identity() if stride == 1 and channels == new_channels else nn.Sequential(
            nn.Conv2d(channels, new_channels, 1, stride, bias=False), nn.BatchNorm2d(new_channels)
        )  # fmt: skip

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [B, channels, H, W] to [B, new_channels, H / stride, W / stride]."""
        inner = self.norm_1(self.conv_1(functional.relu(self.norm_0(self.conv_0(maps)))))
        return functional.relu(inner + self.shortcut(maps))


def resnet18(width: int, classes: int = 10) -> nn.Sequential:
    """Builds the ResNet-18 for small pictures of `jaxunlearn.models`."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for stage in range(4):
        for index in range(2):
            layers.append(Block(channels, width * 2**stage, 2 if stage and not index else 1))
            channels = width * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Pictures(data.Dataset):
    """Random pictures, flipped and cropped one by one on the host."""

    def __init__(self, count: int, side: int) -> None:
        """Draws `count` pictures of side x side pixels."""
        self.inputs = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
        self.labels = torch.randint(0, 10, (count,))

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.inputs)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns one augmented, normalised picture and its label."""
        picture = functional.pad(self.inputs[row].float() / 255, (4, 4, 4, 4))
        side = self.inputs.shape[-1]
        top, left, flip = torch.randint(0, 9, (2,)).tolist() + [torch.rand(()).item() < 0.5]
        picture = picture[:, top : top + side, left : left + side]
        return ((picture.flip(-1) if flip else picture) - 0.5) / 0.25, self.labels[row]


def ways(names: Sequence[str], *, pace: clock.Pace, way: str, width: int, side: int, batch: int, members: int,
         operations: float) -> Iterator[Row]:  # fmt: skip
    """Measures microseconds per training sample of one way.

    Args:
      names: rows to measure.
      pace: of the windows.
      way: loader, memory, compiled, or func.
      width: channels of the first layer.
      side: pixels per side.
      batch: rows per step.
      members: models trained at once by `func`.
      operations: arithmetic per sample, for the share of the peak.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    call, samples = WAYS[way](device, width, side, batch, members)

    def wait(result: Any) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    seconds = clock.windows(call, pace, wait)
    row = value_row(names[0], [1e6 * window / samples for window in seconds], "us per sample", way=way)
    row["arithmetic"] = "tf32" if way == "loader" else "bf16"
    yield {**row, "operation_rate": operations / (row["value"] * 1e-6)}


Call = tuple[Callable[[], Any], int]


def _stepper(model: nn.Module, device: torch.device, is_half: bool) -> Callable[[torch.Tensor, torch.Tensor], Any]:
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)

    def step(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
            loss = functional.cross_entropy(model(inputs).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _loader(device: torch.device, width: int, side: int, batch: int, members: int) -> Call:
    step = _stepper(resnet18(width).to(device), device, False)
    steps = 50 if device.type == "cuda" else 4  # many more than the workers fetch ahead
    loader = data.DataLoader(Pictures(steps * batch, side), batch, shuffle=True, num_workers=LOADER_WORKERS,
                             persistent_workers=True, pin_memory=device.type == "cuda")  # fmt: skip

    def call() -> Any:
        for inputs, labels in loader:
            loss = step(inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True))
        return loss

    return call, steps * batch


def _memory(device: torch.device, width: int, side: int, batch: int, members: int, compiled: bool = False) -> Call:
    model = resnet18(width).to(device, memory_format=torch.channels_last)
    run = torch.compile(model, mode="reduce-overhead") if compiled else model
    step = _stepper(run, device, True)  # type: ignore[arg-type]
    inputs = torch.randn(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,), device=device)
    if not compiled:
        return lambda: step(inputs, labels), batch

    def call() -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return step(inputs, labels)

    return call, batch


def _compiled(device: torch.device, width: int, side: int, batch: int, members: int) -> Call:
    return _memory(device, width, side, batch, members, compiled=True)


def _func(device: torch.device, width: int, side: int, batch: int, members: int) -> Call:
    models = [resnet18(width).to(device) for _ in range(members)]
    for model in models:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = False  # moving them in place is not allowed under vmap
                module.running_mean = module.running_var = module.num_batches_tracked = None
    stacked, _ = torch.func.stack_module_state(models)  # type: ignore[arg-type]
    single = models[0]
    optimizer = torch.optim.SGD(list(stacked.values()), 1e-3, momentum=0.9, weight_decay=5e-4)
    inputs = torch.randn(members, batch, 3, side, side, device=device, dtype=torch.bfloat16)
    labels = torch.randint(0, 10, (members, batch), device=device)

    def objective(parameters: Any, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # Autocast does not work with torch.func; weights are cast by hand, their masters stay float32.
        weights = {name: value.to(torch.bfloat16) for name, value in parameters.items()}
        logits = torch.func.functional_call(single, weights, (inputs,))
        return functional.cross_entropy(logits.float(), labels)

    gradients_of_all = torch.func.vmap(torch.func.grad(objective))

    def call() -> Any:
        gradients = gradients_of_all({name: value.detach() for name, value in stacked.items()}, inputs, labels)
        for name, value in stacked.items():
            value.grad = gradients[name]
        optimizer.step()
        return stacked

    return call, members * batch


WAYS = {"loader": _loader, "memory": _memory, "compiled": _compiled, "func": _func}
