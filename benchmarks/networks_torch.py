"""The networks of `networks.py` in PyTorch: same names, same order, as its users write them.

Activations work in place, gradients are set to None, D does not ask for gradients in G's turn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

Batch = dict[str, Tensor]
Losses = dict[str, float]
Optimizer = Any  # a function of parameters, learning rate and betas


class Played:
    """A game; `play` returns the losses of a step, `step` reads them too."""

    networks: dict[str, nn.Module]

    def play(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def step(self, batch: Batch) -> Losses:
        return {name: loss.item() for name, loss in self.play(batch).items()}


# DCGAN -----------------------------------------------------------------------------------------


def dcgan_generator(size: int, channels: int, nz: int, width: int) -> nn.Sequential:
    """See minigan/gans/dcgan.py."""
    start, doublings = (7, 2) if size == 28 else (4, 4)
    maps = width << (doublings - 1)
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(nz, maps, start, bias=False),
        nn.BatchNorm2d(maps),
        nn.ReLU(True),
    ]
    for _ in range(doublings - 1):
        layers += [
            nn.ConvTranspose2d(maps, maps // 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(maps // 2),
            nn.ReLU(True),
        ]
        maps //= 2
    return nn.Sequential(
        *layers, nn.ConvTranspose2d(maps, channels, 4, 2, 1, bias=False), nn.Tanh()
    )


def dcgan_discriminator(size: int, channels: int, width: int) -> nn.Sequential:
    """See minigan/gans/dcgan.py."""
    start, doublings = (7, 2) if size == 28 else (4, 4)
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, True),
    ]
    for i in range(doublings - 1):
        layers += [
            nn.Conv2d(width << i, width << (i + 1), 4, 2, 1, bias=False),
            nn.BatchNorm2d(width << (i + 1)),
            nn.LeakyReLU(0.2, True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(width << (doublings - 1), 1, start, bias=False))


class DCGAN(Played):
    """G and D of minigan/gans/dcgan.py; the same training order."""

    def __init__(self, size: int, channels: int, width: int, optimizer: Optimizer) -> None:
        self.G = dcgan_generator(size, channels, 100, width)
        self.D = dcgan_discriminator(size, channels, width)
        self.networks = {"G": self.G, "D": self.D}
        self.opt_g = optimizer(self.G.parameters(), 2e-4, (0.5, 0.999))
        self.opt_d = optimizer(self.D.parameters(), 2e-4, (0.5, 0.999))

    def play(self, batch: Batch) -> dict[str, Tensor]:
        real = batch["images"]
        z = batch["z"] if "z" in batch else torch.randn(len(real), 100)
        fake = self.G(z[:, :, None, None])
        self.opt_d.zero_grad()
        loss_d = bce(self.D(real), 1.0) + bce(self.D(fake.detach()), 0.0)
        loss_d.backward()
        self.opt_d.step()
        self.D.requires_grad_(False)
        self.opt_g.zero_grad()
        loss_g = bce(self.D(fake), 1.0)
        loss_g.backward()
        self.opt_g.step()
        self.D.requires_grad_(True)
        return {"D": loss_d.detach(), "G": loss_g.detach()}


def bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


# CycleGAN --------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    def __init__(self, maps: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(maps, maps, 3),
            nn.InstanceNorm2d(maps),
            nn.ReLU(True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(maps, maps, 3),
            nn.InstanceNorm2d(maps),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def resnet_generator(width: int = 64, blocks: int = 6) -> nn.Sequential:
    return nn.Sequential(
        nn.ReflectionPad2d(3),
        nn.Conv2d(3, width, 7),
        nn.InstanceNorm2d(width),
        nn.ReLU(True),
        nn.Conv2d(width, 2 * width, 3, 2, 1),
        nn.InstanceNorm2d(2 * width),
        nn.ReLU(True),
        nn.Conv2d(2 * width, 4 * width, 3, 2, 1),
        nn.InstanceNorm2d(4 * width),
        nn.ReLU(True),
        *[ResidualBlock(4 * width) for _ in range(blocks)],
        nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1),
        nn.InstanceNorm2d(2 * width),
        nn.ReLU(True),
        nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1),
        nn.InstanceNorm2d(width),
        nn.ReLU(True),
        nn.ReflectionPad2d(3),
        nn.Conv2d(width, 3, 7),
        nn.Tanh(),
    )


def patch_discriminator(width: int = 64) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1),
        nn.LeakyReLU(0.2, True),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.InstanceNorm2d(2 * width),
        nn.LeakyReLU(0.2, True),
        nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
        nn.InstanceNorm2d(4 * width),
        nn.LeakyReLU(0.2, True),
        nn.Conv2d(4 * width, 8 * width, 4, 1, 1),
        nn.InstanceNorm2d(8 * width),
        nn.LeakyReLU(0.2, True),
        nn.Conv2d(8 * width, 1, 4, 1, 1),
    )


class CycleGAN(Played):
    def __init__(self, width: int, blocks: int, optimizer: Optimizer) -> None:
        self.G_A, self.G_B = resnet_generator(width, blocks), resnet_generator(width, blocks)
        self.D_A, self.D_B = patch_discriminator(width), patch_discriminator(width)
        self.networks = {"G_A": self.G_A, "G_B": self.G_B, "D_A": self.D_A, "D_B": self.D_B}
        of_g = [*self.G_A.parameters(), *self.G_B.parameters()]
        of_d = [*self.D_A.parameters(), *self.D_B.parameters()]
        self.opt_g = optimizer(of_g, 2e-4, (0.5, 0.999))
        self.opt_d = optimizer(of_d, 2e-4, (0.5, 0.999))

    def play(self, batch: Batch) -> dict[str, Tensor]:
        a, b = batch["a"], batch["b"]
        self.D_A.requires_grad_(False)
        self.D_B.requires_grad_(False)
        self.opt_g.zero_grad()
        fake_b, fake_a = self.G_A(a), self.G_B(b)
        loss_g = (
            square(self.D_B(fake_b), 1.0)
            + square(self.D_A(fake_a), 1.0)
            + 10.0 * (F.l1_loss(self.G_B(fake_b), a) + F.l1_loss(self.G_A(fake_a), b))
            + 5.0 * (F.l1_loss(self.G_B(a), a) + F.l1_loss(self.G_A(b), b))
        )
        loss_g.backward()
        self.opt_g.step()
        self.D_A.requires_grad_(True)
        self.D_B.requires_grad_(True)
        self.opt_d.zero_grad()
        loss_d = 0.5 * (
            square(self.D_A(a), 1.0)
            + square(self.D_A(fake_a.detach()), 0.0)
            + square(self.D_B(b), 1.0)
            + square(self.D_B(fake_b.detach()), 0.0)
        )
        loss_d.backward()
        self.opt_d.step()
        return {"G": loss_g.detach(), "D": loss_d.detach()}


def square(logits: Tensor, target: float) -> Tensor:
    return F.mse_loss(logits, torch.full_like(logits, target))


# SPADE -----------------------------------------------------------------------------------------


class SPADE(nn.Module):
    def __init__(self, features: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.param_free_norm = nn.BatchNorm2d(features, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(labels, hidden, 3, 1, 1), nn.ReLU(True))
        self.mlp_gamma = nn.Conv2d(hidden, features, 3, 1, 1)
        self.mlp_beta = nn.Conv2d(hidden, features, 3, 1, 1)

    def forward(self, x: Tensor, label_map: Tensor) -> Tensor:
        normalized = self.param_free_norm(x)
        a = self.mlp_shared(F.interpolate(label_map, x.shape[2:]))
        return normalized * (1 + self.mlp_gamma(a)) + self.mlp_beta(a)


class SPADEBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, labels: int, hidden: int) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.conv_0 = spectral_norm(nn.Conv2d(inputs, middle, 3, 1, 1))
        self.conv_1 = spectral_norm(nn.Conv2d(middle, outputs, 3, 1, 1))
        self.norm_0 = SPADE(inputs, labels, hidden)
        self.norm_1 = SPADE(middle, labels, hidden)
        self.learned = inputs != outputs
        if self.learned:
            self.conv_s = spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False))
            self.norm_s = SPADE(inputs, labels, hidden)

    def forward(self, x: Tensor, label_map: Tensor) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, label_map)) if self.learned else x
        x = self.conv_0(F.leaky_relu(self.norm_0(x, label_map), 0.2, inplace=True))
        x = self.conv_1(F.leaky_relu(self.norm_1(x, label_map), 0.2, inplace=True))
        return shortcut + x


class SPADEGenerator(nn.Module):
    def __init__(self, labels: int, width: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(labels, 16 * width, 3, 1, 1)
        self.head_0 = SPADEBlock(16 * width, 16 * width, labels, hidden)
        self.G_middle_0 = SPADEBlock(16 * width, 16 * width, labels, hidden)
        self.G_middle_1 = SPADEBlock(16 * width, 16 * width, labels, hidden)
        self.up_0 = SPADEBlock(16 * width, 8 * width, labels, hidden)
        self.up_1 = SPADEBlock(8 * width, 4 * width, labels, hidden)
        self.up_2 = SPADEBlock(4 * width, 2 * width, labels, hidden)
        self.up_3 = SPADEBlock(2 * width, width, labels, hidden)
        self.conv_img = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, label_map: Tensor) -> Tensor:
        height, width = label_map.shape[2:]
        x = self.fc(F.interpolate(label_map, (height // 32, width // 32)))
        x = self.head_0(x, label_map)
        x = self.G_middle_0(double(x), label_map)
        x = self.G_middle_1(x, label_map)
        for block in (self.up_0, self.up_1, self.up_2, self.up_3):
            x = block(double(x), label_map)
        return torch.tanh(self.conv_img(F.leaky_relu(x, 0.2)))


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2)


class LayeredDiscriminator(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.model0 = nn.Sequential(nn.Conv2d(channels, width, 4, 2, 2), nn.LeakyReLU(0.2, True))
        self.model1 = self.layer(width, 2 * width, 2)
        self.model2 = self.layer(2 * width, 4 * width, 2)
        self.model3 = self.layer(4 * width, 8 * width, 1)
        self.model4 = nn.Conv2d(8 * width, 1, 4, 1, 2)

    @staticmethod
    def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, 4, stride, 2, bias=False)
        norm = nn.InstanceNorm2d(outputs)
        return nn.Sequential(spectral_norm(conv), norm, nn.LeakyReLU(0.2, True))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for layer in (self.model0, self.model1, self.model2, self.model3, self.model4):
            x = layer(x)
            features.append(x)
        return features


class MultiscaleDiscriminator(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.discriminator_0 = LayeredDiscriminator(channels, width)
        self.discriminator_1 = LayeredDiscriminator(channels, width)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        small = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return [self.discriminator_0(x), self.discriminator_1(small)]


class Spade(Played):
    def __init__(self, labels: int, width: int, hidden: int, optimizer: Optimizer) -> None:
        self.G = SPADEGenerator(labels, width, hidden)
        self.D = MultiscaleDiscriminator(labels + 3, width)
        self.networks = {"G": self.G, "D": self.D}
        self.opt_g = optimizer(self.G.parameters(), 1e-4, (0.0, 0.9))
        self.opt_d = optimizer(self.D.parameters(), 4e-4, (0.0, 0.9))

    def play(self, batch: Batch) -> dict[str, Tensor]:
        maps, real = batch["maps"], batch["images"]
        self.D.requires_grad_(False)
        self.opt_g.zero_grad()
        of_fake, of_real = self.judge(maps, self.G(maps), real)
        loss_g: Any = 0.0
        for fake, true in zip(of_fake, of_real, strict=True):
            loss_g = loss_g - 0.5 * fake[-1].mean()
            for f, t in zip(fake[:-1], true[:-1], strict=True):
                loss_g = loss_g + 5.0 * F.l1_loss(f, t.detach())
        loss_g.backward()
        self.opt_g.step()
        self.D.requires_grad_(True)
        self.opt_d.zero_grad()
        with torch.no_grad():
            painted = self.G(maps)
        of_fake, of_real = self.judge(maps, painted, real)
        loss_d: Any = 0.0
        for fake, true in zip(of_fake, of_real, strict=True):
            loss_d = loss_d + 0.5 * F.relu(1 - true[-1]).mean() + 0.5 * F.relu(1 + fake[-1]).mean()
        loss_d.backward()
        self.opt_d.step()
        return {"G": loss_g.detach(), "D": loss_d.detach()}

    def judge(
        self, maps: Tensor, fake: Tensor, real: Tensor
    ) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        pairs = [torch.cat([maps, fake], 1), torch.cat([maps, real], 1)]
        scales = self.D(torch.cat(pairs, 0))
        n = len(real)
        return [[f[:n] for f in s] for s in scales], [[f[n:] for f in s] for s in scales]
