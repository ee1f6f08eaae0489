"""Makes the cases of this folder with torch: a network, inputs, and what torch computes for them."""
import json
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

torch.manual_seed(3)
torch.set_num_threads(1)


class Residual(nn.Module):
    def __init__(self, layers, shortcut):
        super().__init__()
        self.layers, self.shortcut = layers, shortcut

    def forward(self, x):
        return self.layers(x) + self.shortcut(x)


class Named(nn.Module):
    """Layers by name, so that the names of tensors are those of config.json."""

    def __init__(self, body, **named):
        super().__init__()
        for name, layer in named.items():
            setattr(self, name, layer)
        self.body = body

    def forward(self, x):
        return self.body(self, x)


def case(name, config, net, x, y, loss):
    folder = pathlib.Path(__file__).parent / name
    folder.mkdir(exist_ok=True)
    for b in net.buffers():  # running statistics that are not 0 and 1
        if b.dtype == torch.float32:
            b.copy_(torch.rand_like(b) + 0.5)
    state = {k: v.clone().contiguous() for k, v in net.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    out = {"input": x, "labels": y}
    net.eval()
    out["output"] = net(x).detach()
    out["loss"] = loss(net(x), y).detach().reshape(1)
    for mode in ("eval", "train"):
        net.load_state_dict(state)
        net.train(mode == "train")
        net.zero_grad()
        value = loss(net(x), y)
        value.backward()
        out[mode + ".loss"] = value.detach().reshape(1)
        for k, p in net.named_parameters():
            out[f"{mode}.grad.{k}"] = p.grad.clone()
        for k, b in net.named_buffers():
            if mode == "train" and b.dtype == torch.float32:
                out["train.moved." + k] = b.clone()
    save_file({k: v.contiguous() for k, v in out.items()}, folder / "case.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def mlp(self, x):
    x = torch.relu(self.first(x))
    x = nn.functional.gelu(self.norm(self.second(x)))
    x = torch.tanh(self.batch(self.third(x)))
    return self.last(nn.functional.leaky_relu(x, 0.2))


case(
    "mlp",
    {
        "model_type": "mlp",
        "input_shape": [7],
        "layers": [
            {"type": "linear", "name": "first", "out": 12},
            {"type": "relu"},
            {"type": "linear", "name": "second", "out": 10, "bias": False},
            {"type": "layer_norm", "name": "norm"},
            {"type": "gelu"},
            {"type": "dropout", "p": 0.5},
            {"type": "linear", "name": "third", "out": 6},
            {"type": "batch_norm", "name": "batch", "momentum": 0.2},
            {"type": "tanh"},
            {"type": "leaky_relu", "slope": 0.2},
            {"type": "linear", "name": "last", "out": 4},
        ],
    },
    Named(mlp, first=nn.Linear(7, 12), second=nn.Linear(12, 10, bias=False), norm=nn.LayerNorm(10), third=nn.Linear(10, 6),
          batch=nn.BatchNorm1d(6, momentum=0.2), last=nn.Linear(6, 4)),
    torch.randn(9, 7),
    torch.randint(0, 4, (9,)).to(torch.int32),
    lambda out, y: nn.functional.cross_entropy(out, y.long()),
)

block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1))
case(
    "convnet",
    {
        "model_type": "convnet",
        "input_shape": [3, 11, 9],
        "layers": [
            {"type": "conv2d", "name": "stem", "out": 8, "kernel": [3, 5], "padding": [1, 2], "bias": False},
            {"type": "batch_norm", "name": "norm"},
            {"type": "relu"},
            {"type": "max_pool", "kernel": 3, "stride": 2, "padding": 1},
            {
                "type": "residual",
                "layers": [
                    {"type": "conv2d", "name": "block.layers.0", "out": 8, "kernel": 3, "padding": 1, "groups": 2, "bias": False},
                    {"type": "batch_norm", "name": "block.layers.1"},
                    {"type": "relu"},
                    {"type": "conv2d", "name": "block.layers.3", "out": 12, "kernel": 3, "stride": 2, "padding": 1},
                ],
                "shortcut": [{"type": "conv2d", "name": "block.shortcut", "out": 12, "kernel": 1, "stride": 2}],
            },
            {"type": "silu"},
            {"type": "conv2d", "name": "wide", "out": 6, "kernel": 2, "dilation": 2},
            {"type": "avg_pool", "kernel": [1, 1]},
            {"type": "sigmoid"},
            {"type": "flatten"},
            {"type": "linear", "name": "head", "out": 5},
        ],
    },
    Named(
        lambda self, x: self.head(torch.sigmoid(self.wide(nn.functional.silu(self.block(nn.functional.max_pool2d(torch.relu(self.norm(self.stem(x))), 3, 2, 1))))).flatten(1)),
        stem=nn.Conv2d(3, 8, (3, 5), padding=(1, 2), bias=False), norm=nn.BatchNorm2d(8),
        block=Residual(block, nn.Conv2d(8, 12, 1, stride=2)), wide=nn.Conv2d(12, 6, 2, dilation=2), head=nn.Linear(6, 5),
    ),
    torch.randn(5, 3, 11, 9),
    torch.randint(0, 5, (5,)).to(torch.int32),
    lambda out, y: nn.functional.cross_entropy(out, y.long()),
)

case(
    "pools",
    {
        "model_type": "convnet",
        "input_shape": [2, 8, 6],
        "loss": "mse",
        "layers": [
            {"type": "conv2d", "name": "a", "out": 4, "kernel": 3, "padding": 2},
            {"type": "avg_pool", "kernel": 3, "stride": 2, "padding": 1, "count_include_pad": False},
            {"type": "gelu_tanh"},
            {"type": "avg_pool", "kernel": 2, "stride": 1, "padding": 1},
            {"type": "batch_norm", "name": "b", "affine": False},
            {"type": "layer_norm", "name": "c", "bias": False},
            {"type": "conv2d", "name": "even", "out": 5, "kernel": [2, 4], "stride": 2, "padding": [1, 3]},
            {"type": "conv2d", "name": "far", "out": 4, "kernel": [1, 2], "padding": [2, 2]},
            {"type": "conv2d", "name": "spread", "out": 4, "kernel": [4, 2], "padding": 1, "dilation": [1, 3]},
            {"type": "global_avg_pool"},
            {"type": "linear", "name": "d", "out": 3},
        ],
    },
    Named(
        lambda self, x: self.d(self.spread(self.far(self.even(self.c(self.b(nn.functional.avg_pool2d(nn.functional.gelu(
            nn.functional.avg_pool2d(self.a(x), 3, 2, 1, count_include_pad=False), approximate="tanh"), 2, 1, 1)))))).mean((2, 3))),
        a=nn.Conv2d(2, 4, 3, padding=2), b=nn.BatchNorm2d(4, affine=False), c=nn.LayerNorm([4, 6, 5], bias=False), d=nn.Linear(4, 3),
        even=nn.Conv2d(4, 5, (2, 4), stride=2, padding=(1, 3)), far=nn.Conv2d(5, 4, (1, 2), padding=2), spread=nn.Conv2d(4, 4, (4, 2), padding=1, dilation=(1, 3)),
    ),
    torch.randn(3, 2, 8, 6),
    torch.randn(3, 3),
    nn.functional.mse_loss,
)
