"""Computes the running statistics of the network in convnet/ as torch.optim.swa_utils.update_bn does, on three batches of eight."""
import os

import torch
from safetensors.torch import load_file, save_file
from torch import nn

here = os.path.dirname(os.path.abspath(__file__))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, (3, 5), padding=(1, 2), bias=False), nn.BatchNorm2d(8)
        self.block = nn.Module()
        self.block.layers = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1))
        self.block.shortcut = nn.Conv2d(8, 12, 1, stride=2)
        self.wide, self.head = nn.Conv2d(12, 6, 2, dilation=2), nn.Linear(6, 5)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.stem(x))), 3, 2, 1)
        x = nn.functional.silu(self.block.layers(x) + self.block.shortcut(x))
        return x  # no batch norm comes behind


net = Net()
weights = load_file(os.path.join(here, "convnet", "model.safetensors"))
net.load_state_dict(weights, strict=False)
torch.manual_seed(1)
data = torch.randn(24, 3, 11, 9)
torch.optim.swa_utils.update_bn(data.split(8), net)
out = {name: t.contiguous() for name, t in net.state_dict().items() if ".running_" in name}
save_file({"input": data, **out}, os.path.join(here, "convnet", "reset.safetensors"))
