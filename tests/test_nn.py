"""Module: what is found inside, names, modes, copies, saving and loading, errors with a place."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import minigan as mg
from minigan import nn
from minigan.errors import CheckpointError, DtypeError, GraphError, MiniganError, UsageError
from minigan.tensor import Tensor


class Block(nn.Module):
    """A residual block with an attribute of each kind."""

    def __init__(self, width: int) -> None:
        self.note = "plain attributes are left alone"
        self.conv = nn.Linear(width, width)
        self.scale = nn.Parameter([[0.5]])
        self.seen = nn.Buffer(np.zeros((), np.int64))
        self.branches = [nn.Linear(width, 1), nn.ReLU()]
        self.named = {"skip": nn.Linear(width, 1, bias=False)}

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) * self.scale


class Net(nn.Module):
    def __init__(self) -> None:
        self.up1 = Block(3)
        self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 2)])
        self.tied = self.up1.conv

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(self.up1(x))
        return x


NAMES = [
    "up1.scale",
    "up1.seen",
    "up1.conv.weight",
    "up1.conv.bias",
    "up1.branches.0.weight",
    "up1.branches.0.bias",
    "up1.named.skip.weight",
    "blocks.0.weight",
    "blocks.0.bias",
    "blocks.1.weight",
    "blocks.1.bias",
]


def ones(*shape: int) -> Tensor:
    return mg.tensor(np.ones(shape, np.float32))


def test_names_are_attribute_paths_and_shared_tensors_come_once() -> None:
    net = Net()
    assert [name for name, _ in net.named_tensors()] == NAMES
    assert [name for name, _ in net.named_buffers()] == ["up1.seen"]
    assert len(list(net.parameters())) == 10
    assert net.num_parameters() == 1 + 12 + 4 + 3 + 12 + 8
    modules = dict(net.named_modules())
    assert modules[""] is net and modules["blocks.1"] is net.blocks[1] and "tied" not in modules
    every = [name for name, _ in net.named_tensors(unique=False)]
    assert every == [*NAMES, "tied.weight", "tied.bias"]


def test_tensors_know_their_names() -> None:
    net = Net()
    assert {t.name for t in net.parameters()} == set(NAMES) - {"up1.seen"}
    part = nn.Sequential(*net.blocks)
    assert net.blocks[0].weight.name == "blocks.0.weight"  # the first name stays
    assert part[0] is net.blocks[0]


def test_a_module_inside_itself_does_not_go_round() -> None:
    net = Net()
    net.up1.parent = net
    assert len(list(net.modules())) == 9
    assert "up1.conv.weight" in dict(net.named_tensors(unique=False))


def test_no_call_of_super_is_needed() -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    assert Plain().training and list(Plain().parameters()) == []


def test_modes_reach_everything_inside() -> None:
    net = Net()
    net.eval()
    assert not any(m.training for m in net.modules())
    net.up1.train()
    assert net.up1.branches[1].training and not net.blocks[0].training
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    assert net.num_parameters(trainable_only=True) == 0


def test_zero_grad_and_apply() -> None:
    net, visited = Net(), []
    (net.blocks[1](ones(2, 3))).sum().backward()
    assert net.blocks[1].weight.grad is not None
    net.zero_grad()
    assert net.blocks[1].weight.grad is None
    assert net.apply(lambda m: visited.append(m)) is net
    assert visited[-1] is net and len(visited) == 9


def test_a_parameter_cannot_be_overwritten_by_a_tensor() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(UsageError, match=r"Linear.weight is a Parameter.*\n.*optimizer"):
        layer.weight = layer.weight * 2.0  # type: ignore[assignment]
    layer.bias = None  # leaving it out is fine
    assert [n for n, _ in layer.named_parameters()] == ["weight"]


def test_deepcopy_has_its_own_arrays_and_keeps_sharing() -> None:
    net = Net()
    net.up1.conv.weight.requires_grad = False
    twin = copy.deepcopy(net)
    assert twin.tied is twin.up1.conv and twin.tied is not net.tied
    assert not twin.up1.conv.weight.requires_grad and twin.up1.conv.bias.requires_grad
    for (name, a), (other, b) in zip(net.named_tensors(), twin.named_tensors(), strict=True):
        assert name == other and np.array_equal(a.data, b.data)
        assert a.node is not b.node or a.node is None
        assert not np.shares_memory(a.data, b.data)


def test_astype_converts_floats_and_forgets_gradients() -> None:
    net = Net()
    net.blocks[1](ones(1, 3)).sum().backward()
    net.astype("float64")
    assert {t.dtype for t in net.parameters()} == {np.dtype("float64")}
    assert net.up1.seen.dtype == np.int64 and net.blocks[1].weight.grad is None
    with pytest.raises(DtypeError):
        net.astype("int32")


def test_to_cpu_keeps_the_arrays() -> None:
    net = Net()
    before = net.up1.scale.data
    assert net.to("cpu") is net and net.up1.scale.data is before
    with pytest.raises(UsageError, match="unknown device"):
        net.to("tpu")


def test_state_dict_round_trip() -> None:
    a, b = Net(), Net()
    state = a.state_dict()
    assert list(state) == NAMES
    state["up1.scale"] = np.array([[7.0]])  # float64 becomes what the parameter is
    versions = [p.version[0] for p in b.parameters()]
    b.load_state_dict(state)
    assert b.up1.scale.dtype == np.float32 and b.up1.scale.item() == 7
    assert all(p.version[0] > v for p, v in zip(b.parameters(), versions, strict=True))
    assert np.array_equal(b.blocks[1].weight.data, a.blocks[1].weight.data)
    state["blocks.0.bias"][:] = 99
    assert not np.any(b.blocks[0].bias.data == 99)  # neither side shares memory


def test_loading_is_all_or_nothing_with_a_table() -> None:
    net = Net()
    before = net.state_dict()
    state = net.state_dict()
    state["blocks.0.wieght"] = state.pop("blocks.0.weight")
    state["blocks.1.bias"] = np.zeros(3)
    state["up1.scale"] = np.array([[9.0]])
    with pytest.raises(CheckpointError) as caught:
        net.load_state_dict(state)
    assert str(caught.value).splitlines()[:4] == [
        "load_state_dict: Net: 3 misfits; nothing was loaded",
        "    missing     blocks.0.weight  (3, 3)",
        "    unexpected  blocks.0.wieght  (3, 3) (did you mean 'blocks.0.weight'?)",
        "    mismatched  blocks.1.bias  (3,) in the file, (2,) here",
    ]
    for name, value in net.state_dict().items():
        assert np.array_equal(value, before[name])
    with pytest.raises(CheckpointError, match="1 misfit;"):
        net.load_state_dict(state, strict=False)  # a wrong shape is always an error
    del state["blocks.1.bias"]
    net.load_state_dict(state, strict=False)
    assert net.up1.scale.item() == 9


def test_a_long_table_is_cut() -> None:
    with pytest.raises(CheckpointError, match=r"\.\.\. and 11 more"):
        Net().load_state_dict({f"k{i}": np.zeros(1) for i in range(20)})


def test_shared_tensors_load_under_any_of_their_names() -> None:
    a, b = Net(), Net()
    state = a.state_dict()
    state["tied.weight"] = state.pop("up1.conv.weight")
    b.load_state_dict(state)
    assert np.array_equal(b.up1.conv.weight.data, a.up1.conv.weight.data)


def test_rename_and_optional_counters() -> None:
    norm = nn.BatchNorm2d(3)
    state = {f"module.{k}": v + 2 for k, v in norm.state_dict().items()}
    del state["module.num_batches_tracked"]  # as in files of old PyTorch versions
    state["module.weight_extra"] = np.zeros(1)
    norm.load_state_dict(
        state, rename=lambda k: None if "extra" in k else k.removeprefix("module.")
    )
    assert norm.running_var is not None and norm.running_var.data[0] == 3


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("module.main.0.weight_orig", "main.0.weight"),
        ("main.0.weight_u", "main.0.sn.u"),
        ("weight_v", "sn.v"),
        ("up.parametrizations.weight.original", "up.weight"),
        ("up.parametrizations.weight.0._u", "up.sn.u"),
        ("parametrizations.weight.0._v", "sn.v"),
        ("bn.running_mean", "bn.running_mean"),
    ],
)
def test_names_from_torch(theirs: str, ours: str) -> None:
    assert nn.from_torch(theirs) == ours


def test_an_error_tells_the_path_of_the_layer() -> None:
    class G(nn.Module):
        def __init__(self) -> None:
            self.net = Net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    with pytest.raises(MiniganError) as caught:
        G()(ones(2, 5))
    assert caught.value.path == ["G", "net", "up1", "conv"]
    assert "where: G.net.up1.conv, input (2, 5)" in str(caught.value)
    net = Net()
    net.blocks[1] = nn.Linear(4, 4)
    with pytest.raises(MiniganError, match=r"where: Net\.blocks\.1, input"):
        net(ones(2, 3))
    with pytest.raises(MiniganError, match=r"where: Linear, input"):
        net.blocks[1](ones(2, 3))


def test_a_module_made_on_the_way_keeps_its_class_name() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.Sequential(nn.Linear(4, 4))(x)

    with pytest.raises(MiniganError) as caught:
        Odd()(ones(1, 3))
    assert caught.value.path == ["Odd", "Sequential", "0"]


def test_a_parameter_that_changed_too_early_is_named() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    loss = net(ones(1, 2)).sum()
    net[1].weight.data[...] = 0
    net[1].weight.bump()
    with pytest.raises(GraphError, match=r"1\.weight changed"):
        loss.backward()


def test_observers_see_calls_in_order() -> None:
    class Log:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def enter(self, module: nn.Module, args: Any) -> None:
            self.lines.append(f"> {type(module).__name__}")

        def leave(self, module: nn.Module, args: Any, out: Any) -> None:
            self.lines.append(f"< {type(module).__name__} {out.shape}")

    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with nn.observe(Log()) as log:
        net(ones(1, 2))
    net(ones(1, 2))
    assert log.lines == [
        "> Sequential",
        "> Linear",
        "< Linear (1, 3)",
        "> ReLU",
        "< ReLU (1, 3)",
        "< Sequential (1, 3)",
    ]


# Containers ------------------------------------------------------------------------------------


def test_sequential_is_indexed_and_sliced() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert isinstance(net[:2], nn.Sequential) and len(net[:2]) == 2
    assert net[-1] is net[2] and [type(m) for m in net][1] is nn.ReLU
    assert net[1:][1] is net[2] and net[2].weight.name == "2.weight"
    net[1] = nn.Tanh()
    assert isinstance(net[1], nn.Tanh) and list(dict(net.named_children())) == ["0", "1", "2"]
    with pytest.raises(IndexError):
        net[3]
    with pytest.raises(UsageError, match="not a Module"):
        nn.Sequential([nn.ReLU()])  # type: ignore[arg-type]


def test_module_list_and_dict() -> None:
    items = nn.ModuleList([nn.ReLU()])
    assert len(items.append(nn.Tanh()).extend([nn.ReLU()])) == 3
    assert isinstance(items[1:], nn.ModuleList) and len(items[1:]) == 2
    table = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.ReLU()})
    assert list(table) == ["a", "b"] and "a" in table and "c" not in table and len(table) == 2
    assert isinstance(table["b"], nn.ReLU) and [n for n, _ in table.items()] == ["a", "b"]
    assert [n for n, _ in table.named_parameters()] == ["a.weight", "a.bias"]
    assert len(list(table.values())) == 2
    del table["a"]
    assert list(table.keys()) == ["b"]
    with pytest.raises(UsageError, match="cannot be a name"):
        table["forward.x"] = nn.ReLU()
    with pytest.raises(UsageError, match="cannot be a name"):
        table["train"] = nn.ReLU()


def test_repr_is_a_tree() -> None:
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Sequential(nn.LeakyReLU(0.2)))
    nn.spectral_norm(net[0])
    assert repr(net) == (
        "Sequential(\n"
        "  (0): Linear(\n"
        "    2, 3, bias=False\n"
        "    (sn): SpectralNorm(n_power_iterations=1)\n"
        "  )\n"
        "  (1): Sequential(\n"
        "    (0): LeakyReLU(0.2)\n"
        "  )\n"
        ")"
    )
    assert repr(net[0].weight) == "Parameter(0.weight, (3, 2), float32)"
    conv = nn.ConvTranspose2d(4, 8, 4, stride=2, padding=1, bias=False)
    assert repr(conv) == "ConvTranspose2d(4, 8, kernel_size=4, stride=2, padding=1, bias=False)"


# Summary ---------------------------------------------------------------------------------------


def test_summary_counts_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(4 * 8 * 8, 10),
    )
    table = nn.summary(net, (2, 3, 4, 4))
    rows = {row.name: row for row in table.rows}
    assert [rows[n].flops for n in "01235"] == [
        2 * (2 * 8 * 16) * 27,
        0,
        0,
        2 * (2 * 8 * 16) * 64,
        2 * 2 * 10 * 256,
    ]
    assert table.flops == sum(row.flops for row in rows.values())
    assert table.parameters == net.num_parameters() == 224 + 16 + 512 + 2570
    assert [rows[n].parameters for n in "01235"] == [224, 16, 0, 512, 2570]
    assert [rows[n].activations for n in "01235"] == [1024, 1024, 1024, 2048, 80]
    assert rows["3"].shape == (2, 4, 8, 8)
    text = str(table).splitlines()
    assert text[0].split() == ["module", "kind", "output", "parameters", "FLOPs", "activations"]
    assert text[-1].split()[:2] == ["total", "3,322"] and len({len(t) for t in text[:1]}) == 1


def test_summary_leaves_everything_as_it_was() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    net[1].eval()
    state, counters = net.state_dict(), mg.random.state()
    nn.summary(net, (4, 2))
    assert [m.training for m in net.modules()] == [True, True, False, True]
    assert mg.random.state() == counters
    for name, value in net.state_dict().items():
        assert np.array_equal(value, state[name])


def test_summary_of_operations_outside_of_layers_and_of_labels() -> None:
    class Conditional(nn.Module):
        def __init__(self) -> None:
            self.embed = nn.Embedding(10, 4)
            self.gain = nn.Parameter(np.ones((), np.float32))

        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            return (x @ self.embed(labels).T) * self.gain

    table = nn.summary(Conditional(), (2, 4), np.array([1, 2]))
    assert {row.name: row.flops for row in table.rows} == {"Conditional": 32, "embed": 0}
    assert {row.name: row.parameters for row in table.rows} == {"Conditional": 1, "embed": 40}
    with pytest.raises(UsageError, match="neither a shape nor an array"):
        nn.summary(nn.ReLU(), "x")  # type: ignore[arg-type]
