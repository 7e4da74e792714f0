"""A few seconds of synthetic sounds: plucked strings, sweeps and noise bursts."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def make_sounds(count: int, sample_rate: int, duration_s: float, seed: int = 0) -> Tensor:
    """Return `count` different sounds, `[count, 1, samples]`, peaks at 1."""
    generator = torch.Generator().manual_seed(seed)
    time_s = torch.arange(int(sample_rate * duration_s)) / sample_rate
    sounds = []
    for index in range(count):
        pitch = 110.0 * 2.0 ** (torch.rand(1, generator=generator).item() * 3.0)
        decay = 2.0 + 6.0 * torch.rand(1, generator=generator).item()
        if index % 3 == 0:
            partials = [torch.sin(2 * math.pi * pitch * n * time_s) / n for n in range(1, 8)]
            sound = torch.stack(partials).sum(0) * torch.exp(-decay * time_s)
        elif index % 3 == 1:
            sound = torch.sin(2 * math.pi * pitch * (time_s + time_s.square())) * torch.exp(-0.5 * decay * time_s)
        else:
            noise = torch.randn(time_s.shape, generator=generator)
            sound = noise * torch.exp(-3.0 * decay * time_s) + 0.3 * torch.sin(2 * math.pi * pitch * time_s)
        sounds.append(sound / sound.abs().max())
    return torch.stack(sounds).unsqueeze(1)
