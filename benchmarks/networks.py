"""CycleGAN and SPADE on `minigan.nn`, for the benchmarks of whole training steps.

`networks_torch.py` has the same networks in PyTorch, line by line and with the same names, so that
weights can be carried over. Each class here is a game in the sense of the benchmarks:

    networks    name -> Module
    parameters  those of all networks
    play(batch) one step of both players; returns their losses, not yet read from the device
    step(batch) the same, and reads them

CycleGAN: Zhu et al. (2017), arXiv:1703.10593; G with six residual blocks for 128 pixels, 70x70
PatchGAN D, least squares, cycle weight 10, identity weight 5; without the pool of older fakes.

SPADE: Park et al. (2019), arXiv:1903.07291; ngf 64, five doublings, the label map instead of a
style vector at the start, two discriminators of different scale, hinge loss and feature matching
with weight 10, spectral norm in both; without the loss of a pretrained VGG network.
"""

from __future__ import annotations

from typing import Any

import minigan as mg
import minigan.functional as F
from minigan import autograd, nn, optim
from minigan.backend import to_device
from minigan.nn import init
from minigan.tensor import Tensor

Batch = dict[str, Any]  # name -> array
Losses = dict[str, float]


class Played:
    """What both games have in common: they can move to a device."""

    networks: dict[str, nn.Module]
    opt_g: optim.Optimizer
    opt_d: optim.Optimizer
    device = "cpu"

    def to(self, device: str) -> None:
        """Move everything to a device."""
        self.device = device
        for part in (*self.networks.values(), self.opt_g, self.opt_d):
            part.to(device)

    def tensor(self, array: Any) -> Tensor:
        """Data on that device."""
        return Tensor(to_device(array, self.device))

    def play(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def step(self, batch: Batch) -> Losses:
        return {name: float(loss.item()) for name, loss in self.play(batch).items()}


# CycleGAN --------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))), instance norm after each 3x3 convolution."""

    def __init__(self, maps: int) -> None:
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(maps, maps, 3),
            nn.InstanceNorm2d(maps),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(maps, maps, 3),
            nn.InstanceNorm2d(maps),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def resnet_generator(width: int = 64, blocks: int = 6) -> nn.Sequential:
    """Image (N,3,H,W) -> image: a quarter of the size inside, `blocks` residual blocks there."""
    return nn.Sequential(
        nn.ReflectionPad2d(3),
        nn.Conv2d(3, width, 7),
        nn.InstanceNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.InstanceNorm2d(2 * width),
        nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
        nn.InstanceNorm2d(4 * width),
        nn.ReLU(),
        *[ResidualBlock(4 * width) for _ in range(blocks)],
        nn.ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(width),
        nn.ReLU(),
        nn.ReflectionPad2d(3),
        nn.Conv2d(width, 3, 7),
        nn.Tanh(),
    )


def patch_discriminator(width: int = 64) -> nn.Sequential:
    """Image -> logits, one for each patch of 70x70 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
        nn.InstanceNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
        nn.InstanceNorm2d(4 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4 * width, 8 * width, 4, padding=1),
        nn.InstanceNorm2d(8 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8 * width, 1, 4, padding=1),
    )


class CycleGAN(Played):
    """G_A: domain A -> B, G_B: B -> A; D_A judges images of A, D_B of B."""

    def __init__(self, width: int = 64, blocks: int = 6) -> None:
        self.G_A, self.G_B = resnet_generator(width, blocks), resnet_generator(width, blocks)
        self.D_A, self.D_B = patch_discriminator(width), patch_discriminator(width)
        self.networks = {"G_A": self.G_A, "G_B": self.G_B, "D_A": self.D_A, "D_B": self.D_B}
        for network in self.networks.values():
            init.dcgan_(network)
        self.of_g = [*self.G_A.parameters(), *self.G_B.parameters()]
        self.of_d = [*self.D_A.parameters(), *self.D_B.parameters()]
        self.parameters = self.of_g + self.of_d
        self.opt_g = optim.Adam(self.of_g, 2e-4, (0.5, 0.999))
        self.opt_d = optim.Adam(self.of_d, 2e-4, (0.5, 0.999))

    def play(self, batch: Batch) -> dict[str, Tensor]:
        a, b = self.tensor(batch["a"]), self.tensor(batch["b"])
        fake_b, fake_a = self.G_A(a), self.G_B(b)
        loss_g = (
            F.mse_loss(self.D_B(fake_b), 1.0)
            + F.mse_loss(self.D_A(fake_a), 1.0)
            + 10.0 * (F.l1_loss(self.G_B(fake_b), a) + F.l1_loss(self.G_A(fake_a), b))
            + 5.0 * (F.l1_loss(self.G_B(a), a) + F.l1_loss(self.G_A(b), b))
        )
        self.opt_g.step(mg.grad(loss_g, self.of_g))
        loss_d = 0.5 * (
            F.mse_loss(self.D_A(a), 1.0)
            + F.mse_loss(self.D_A(fake_a.detach()), 0.0)
            + F.mse_loss(self.D_B(b), 1.0)
            + F.mse_loss(self.D_B(fake_b.detach()), 0.0)
        )
        self.opt_d.step(mg.grad(loss_d, self.of_d))
        return {"G": loss_g.detach(), "D": loss_d.detach()}


# SPADE -----------------------------------------------------------------------------------------


class SPADEBlock(nn.Module):
    """shortcut(x) + conv(act(norm(conv(act(norm(x)))))), every norm steered by the label map."""

    def __init__(self, inputs: int, outputs: int, labels: int, hidden: int) -> None:
        middle = min(inputs, outputs)
        self.conv_0 = nn.spectral_norm(nn.Conv2d(inputs, middle, 3, padding=1))
        self.conv_1 = nn.spectral_norm(nn.Conv2d(middle, outputs, 3, padding=1))
        self.norm_0 = nn.SPADE(inputs, labels, hidden)
        self.norm_1 = nn.SPADE(middle, labels, hidden)
        self.learned = inputs != outputs
        if self.learned:
            self.conv_s = nn.spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False))
            self.norm_s = nn.SPADE(inputs, labels, hidden)

    def forward(self, x: Tensor, label_map: Tensor) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, label_map)) if self.learned else x
        x = self.conv_0(F.leaky_relu(self.norm_0(x, label_map), 0.2))
        x = self.conv_1(F.leaky_relu(self.norm_1(x, label_map), 0.2))
        return shortcut + x


class SPADEGenerator(nn.Module):
    """Label map (N,labels,H,W), one channel per class -> image; starts at H / 32."""

    def __init__(self, labels: int, width: int = 64, hidden: int = 128) -> None:
        self.fc = nn.Conv2d(labels, 16 * width, 3, padding=1)
        self.head_0 = SPADEBlock(16 * width, 16 * width, labels, hidden)
        self.G_middle_0 = SPADEBlock(16 * width, 16 * width, labels, hidden)
        self.G_middle_1 = SPADEBlock(16 * width, 16 * width, labels, hidden)
        self.up_0 = SPADEBlock(16 * width, 8 * width, labels, hidden)
        self.up_1 = SPADEBlock(8 * width, 4 * width, labels, hidden)
        self.up_2 = SPADEBlock(4 * width, 2 * width, labels, hidden)
        self.up_3 = SPADEBlock(2 * width, width, labels, hidden)
        self.conv_img = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, label_map: Tensor) -> Tensor:
        height, width = label_map.shape[2:]
        x = self.fc(F.interpolate(label_map, (height // 32, width // 32)))
        x = self.head_0(x, label_map)
        x = self.G_middle_0(double(x), label_map)
        x = self.G_middle_1(x, label_map)
        for block in (self.up_0, self.up_1, self.up_2, self.up_3):
            x = block(double(x), label_map)
        return F.tanh(self.conv_img(F.leaky_relu(x, 0.2)))


def double(x: Tensor) -> Tensor:
    """Each pixel as two by two."""
    return F.interpolate(x, scale_factor=2)


class LayeredDiscriminator(nn.Module):
    """Image and label map -> the outputs of all five layers; the last ones are patch logits."""

    def __init__(self, channels: int, width: int = 64) -> None:
        self.model0 = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=2), nn.LeakyReLU(0.2)
        )
        self.model1 = self.layer(width, 2 * width, 2)
        self.model2 = self.layer(2 * width, 4 * width, 2)
        self.model3 = self.layer(4 * width, 8 * width, 1)
        self.model4 = nn.Conv2d(8 * width, 1, 4, padding=2)

    @staticmethod
    def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, 4, stride=stride, padding=2, bias=False)
        return nn.Sequential(nn.spectral_norm(conv), nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for layer in (self.model0, self.model1, self.model2, self.model3, self.model4):
            x = layer(x)
            features.append(x)
        return features


class MultiscaleDiscriminator(nn.Module):
    """Two layered discriminators, the second one for the image at half its size."""

    def __init__(self, channels: int, width: int = 64) -> None:
        self.discriminator_0 = LayeredDiscriminator(channels, width)
        self.discriminator_1 = LayeredDiscriminator(channels, width)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        small = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return [self.discriminator_0(x), self.discriminator_1(small)]


class Spade(Played):
    """G paints a label map; D sees map and image together, fakes and real ones in one batch."""

    def __init__(self, labels: int = 35, width: int = 64, hidden: int = 128) -> None:
        self.G = SPADEGenerator(labels, width, hidden)
        self.D = MultiscaleDiscriminator(labels + 3, width)
        self.networks = {"G": self.G, "D": self.D}
        for network in self.networks.values():
            init.spade_(network)
        self.of_g, self.of_d = list(self.G.parameters()), list(self.D.parameters())
        self.parameters = self.of_g + self.of_d
        self.opt_g = optim.Adam(self.of_g, 1e-4, (0.0, 0.9))
        self.opt_d = optim.Adam(self.of_d, 4e-4, (0.0, 0.9))

    def play(self, batch: Batch) -> dict[str, Tensor]:
        maps, real = self.tensor(batch["maps"]), self.tensor(batch["images"])
        of_fake, of_real = self.judge(maps, self.G(maps), real)
        parts = []
        for fake, true in zip(of_fake, of_real, strict=True):
            parts.append(-0.5 * fake[-1].mean())
            parts += [
                5.0 * F.l1_loss(f, t.detach()) for f, t in zip(fake[:-1], true[:-1], strict=True)
            ]
        loss_g = sum(parts[1:], parts[0])
        self.opt_g.step(mg.grad(loss_g, self.of_g))
        with autograd.no_grad():
            painted = self.G(maps)
        of_fake, of_real = self.judge(maps, painted, real)
        parts = []
        for fake, true in zip(of_fake, of_real, strict=True):
            parts.append(0.5 * F.hinge_loss(true[-1], True))
            parts.append(0.5 * F.hinge_loss(fake[-1], False))
        loss_d = sum(parts[1:], parts[0])
        self.opt_d.step(mg.grad(loss_d, self.of_d))
        return {"G": loss_g.detach(), "D": loss_d.detach()}

    def judge(
        self, maps: Tensor, fake: Tensor, real: Tensor
    ) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """D's features of the fakes and of the real images."""
        pairs = [F.concat([maps, fake], axis=1), F.concat([maps, real], axis=1)]
        scales = self.D(F.concat(pairs, axis=0))
        n = len(real.data)
        halves = [[F.split(f, n) for f in features] for features in scales]
        return [[f for f, _ in s] for s in halves], [[t for _, t in s] for s in halves]
