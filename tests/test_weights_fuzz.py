"""No file makes the reader of .pth files do anything but read, or refuse with a clear message."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchfile import Tensor, archive, dump, packed, text

from minigan.errors import CheckpointError
from minigan.weights import load_pth
from minigan.weights.pth import states
from minigan.weights.unpickle import LIMIT, Name, Ordered, Refused, unpickle

TREE = {
    "epoch": 3,
    "netG": OrderedDict(w=np.arange(6, dtype=np.float32).reshape(2, 3), n=np.array(4)),
    "netD": OrderedDict(b=np.array([True, False])),
}
SEALED, UNSEALED = (packed(*dump(TREE), crc=crc) for crc in (True, False))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "mutant.pth"


def attempt(file: Path, data: bytes) -> Any:
    """What the file holds, or None if it is refused as it should be."""
    file.write_bytes(data)
    try:
        tree = load_pth(file)
        states(tree, str(file))
    except CheckpointError as error:
        assert file.name in str(error) and len(str(error)) < 2000
        return None
    return tree


# Damage ------------------------------------------------------------------------------------------


def test_every_single_bit_flip_of_a_sealed_file_is_refused_or_harmless(file: Path) -> None:
    for place in range(0, 8 * len(SEALED), 29):
        data = bytearray(SEALED)
        data[place // 8] ^= 1 << place % 8
        tree = attempt(file, bytes(data))
        if tree is not None:
            assert tree.keys() == TREE.keys()
            np.testing.assert_array_equal(tree["netG"]["w"], TREE["netG"]["w"])  # type: ignore[index]


@pytest.mark.parametrize("data", [SEALED, UNSEALED], ids=["sealed", "unsealed"])
def test_every_truncation_is_refused(file: Path, data: bytes) -> None:
    for length in range(0, len(data), 3):
        assert attempt(file, data[:length]) is None


changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "insert", "copy"]),
        st.integers(0, 2**16),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=5,
)


def mutate(data: bytes, steps: list[tuple[str, int, int]]) -> bytes:
    mutant = bytearray(data)
    for kind, place, value in steps:
        at = place % max(1, len(mutant))
        if kind == "flip":
            mutant[at : at + 1] = bytes(b ^ 1 << value % 8 for b in mutant[at : at + 1])
        elif kind == "set":
            mutant[at : at + 1] = bytes([value])
        elif kind == "cut":
            del mutant[at : at + value]
        elif kind == "insert":
            mutant.insert(at, value)
        else:
            mutant[at:at] = mutant[at // 2 : at // 2 + value]
    return bytes(mutant)


@given(steps=changes)
def test_mutants_without_checksums(file: Path, steps: list[tuple[str, int, int]]) -> None:
    attempt(file, mutate(UNSEALED, steps))


@given(steps=changes)
def test_mutants_of_the_pickle(file: Path, steps: list[tuple[str, int, int]]) -> None:
    body, storages = dump(TREE)
    attempt(file, packed(mutate(body, steps), storages))


PIECES = [
    *(bytes([code]) for code in b"(.0124NeabcdhijlopqrstuQRI}])\x81\x82\x85\x86\x87\x88\x89\x8f\x90"
      b"\x91\x92\x93\x94\x95\x97\x98"),
    b"K\x01", b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"X\x01\0\0\0a", b"\x8a\x08" + b"\xff" * 8,
    b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nSize\n",
    b"ccollections\nOrderedDict\n", b"ccollections\nOrderedDict\n)R", b"cos\nsystem\n",
    text("storage"), text("0"), text("cpu"), text("os"), text("system"), b"G" + b"\x7f" * 8,
    b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x06tQ",
]  # fmt: skip


@given(program=st.lists(st.sampled_from(PIECES), max_size=40))
def test_random_programs(file: Path, program: list[bytes]) -> None:
    body = b"\x80\x02" + b"".join(program) + b"."
    attempt(file, packed(body, {"0": bytes(24)}))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many_random_mutants(file: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    body, storages = dump(TREE)
    kinds = ["flip", "set", "cut", "insert", "copy"]
    for _ in range(1000):
        steps = [
            (kinds[rng.integers(5)], int(rng.integers(2**16)), int(rng.integers(12)))
            for _ in range(rng.integers(1, 6))
        ]
        attempt(file, mutate(UNSEALED, steps))
        attempt(file, packed(mutate(body, steps), storages))
        pieces = b"".join(PIECES[i] for i in rng.integers(len(PIECES), size=rng.integers(1, 30)))
        attempt(file, packed(b"\x80\x02" + pieces + b".", {"0": bytes(24)}))


@given(noise=st.binary(max_size=200))
def test_noise(file: Path, noise: bytes) -> None:
    for data in (noise, b"PK\x03\x04" + noise, packed(noise), packed(b"\x80\x02" + noise + b".")):
        attempt(file, data)


@given(noise=st.binary(max_size=60))
def test_the_machine_only_ever_refuses(noise: bytes) -> None:
    names = {"a.b": Name("a.b", lambda arguments: Ordered())}
    try:
        unpickle(b"\x80\x04" + noise, names, lambda identity: None)
    except Refused as error:
        assert error.what and 0 <= error.offset <= len(noise) + 2


# Attacks -----------------------------------------------------------------------------------------


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def attacks() -> dict[str, bytes]:
    """Pickles that make the file "canary", or do other things, where pickle.load is used."""
    touch = "touch canary"
    calls = {
        "os.system": Call(os.system, touch),
        "eval": Call(eval, "open('canary', 'w')"),
        "exec": Call(exec, "open('canary', 'w')"),
        "open": Call(open, "canary", "w"),
        "import": Call(__import__, "os"),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "popen": Call(subprocess.Popen, ["touch", "canary"]),
        "numpy": np.arange(3.0),
        "numpy object": np.array([Call(os.system, touch)]),
        "numpy scalar": np.float64(3),
        "path": Path("canary"),
        "in a state dict": OrderedDict(w=Call(os.system, touch)),
        "set": {1, 2},
        "bytes": b"12",
        "bytearray": bytearray(b"12"),
    }
    corpus = {
        f"{name}, protocol {protocol}": pickle.dumps(value, protocol)
        for name, value in calls.items()
        for protocol in range(6)
    }
    system, command = b"cos\nsystem\n", text(touch)
    dictionary = b"ccollections\nOrderedDict\n"
    byhand = {
        "INST": b"(" + command + b"ios\nsystem\n",
        "OBJ": b"(" + system + command + b"o",
        "NEWOBJ": dictionary + b")\x81",
        "NEWOBJ_EX": dictionary + b")}\x92",
        "EXT1": b"\x82\x01",
        "EXT4": b"\x84\x01\x00\x00\x00",
        "PERSID": b"P../../etc/passwd\n",
        "STACK_GLOBAL": text("os") + text("system") + b"\x93" + command + b"\x85R",
        "STACK_GLOBAL of a dotted name": text("torch") + text("os.system") + b"\x93)R",
        "STACK_GLOBAL that splits elsewhere": text("torch._utils._os") + text("system") + b"\x93)R",
        "STACK_GLOBAL of numbers": b"K\x01K\x02\x93",
        "GLOBAL without an end": b"c" + b"a" * 500,
        "GLOBAL of an inner name": b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n",
        "GLOBAL of the class's methods": b"ccollections\nOrderedDict.__reduce__\n",
        "REDUCE of text": text("os.system") + command + b"\x85R",
        "REDUCE of a type": b"ctorch\nFloatStorage\n)R",
        "REDUCE with a list": dictionary + b"]R",
        "REDUCE with arguments": dictionary + b"]\x85R",
        "REDUCE of Size": b"ctorch\nSize\n" + command + b"\x85R",
        "REDUCE of a tensor": b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02tR",
        "REDUCE of a tensor v3": b"ctorch._utils\n_rebuild_tensor_v3\n(K\x01K\x02K\x03)))NtR",
        "REDUCE of a parameter": b"ctorch._utils\n_rebuild_parameter\n)R",
        "REDUCE of a device": b"ctorch\ndevice\nK\x01R",
        "BUILD of a dict": b"}}b",
        "BUILD of a function": dictionary + b"}b",
        "BUILD of a list": b"]}b",
        "BUILD of nothing": b"}b",
        "BINPERSID of a path": text("../x") + b"Q",
        "BINPERSID of a list": b"]Q",
        "BINPERSID of nothing": b"Q",
        "a tuple as key": b"})K\x01s",
        "a list as key": b"}]K\x01s",
        "a name with a line feed": b"}" + text("a\n\x1b[2J") + b"K\x01s",
        "a name that is too long": b"}" + text("a" * 301) + b"K\x01s",
        "an odd number of items": b"}(K\x01u",
        "a list filled as a dict": b"]K\x01K\x01s",
        "a dict filled as a list": b"}K\x01a",
        "a mark that is not open": b"K\x01t",
        "an integer of 33 bytes": b"\x8a\x21" + b"\x01" * 33,
        "a memo that is empty": b"h\x07",
        "text that is no UTF-8": b"X\x02\0\0\0\xff\xff",
        "two values": b"K\x01K\x02",
        "an open mark": b"K\x01(",
        "PROTO again": b"N\x80\x02",
    }
    corpus |= {name: b"\x80\x04" + code + b"." for name, code in byhand.items()}
    corpus["no PROTO"] = b"K\x01."
    corpus["PROTO 6"] = b"\x80\x06K\x01."
    corpus["bytes after the end"] = b"\x80\x02K\x01.K"
    corpus["nothing"] = b""
    return corpus


RUNNER = """
import sys
from pathlib import Path
from minigan.errors import CheckpointError
from minigan.weights import load_pth
armed = False
def watch(event, arguments):
    if armed and not (event == "open" and str(arguments[0]).endswith(".pth")):
        print("ALARM", event, arguments, flush=True)
sys.addaudithook(watch)
for path in sorted(Path().glob("*.pth")):
    armed = True
    try:
        load_pth(path)
        outcome = "read"
    except CheckpointError as error:
        outcome = str(error).partition("\\n")[0]
    armed = False
    print(path.name, outcome)
"""


def test_attacks_are_refused_and_run_nothing(tmp_path: Path) -> None:
    corpus = attacks()
    for i, body in enumerate(corpus.values()):
        (tmp_path / f"{i:03}.pth").write_bytes(packed(body, {"0": bytes(24)}))
    command = [sys.executable, "-c", RUNNER]
    root = str(Path(__file__).parent.parent)
    paths = os.pathsep.join([root, os.path.join(root, "kernels")])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ALARM" not in done.stdout, done.stdout
    assert not (tmp_path / "canary").exists()
    outcomes = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    read = [name for i, name in enumerate(corpus) if outcomes[f"{i:03}.pth"] == "read"]
    assert read == []


def test_the_name_that_is_asked_for_is_said(file: Path) -> None:
    file.write_bytes(packed(b"\x80\x04" + text("os") + text("system") + b"\x93."))
    with pytest.raises(CheckpointError) as caught:
        load_pth(file)
    said = str(caught.value)
    assert "asks for 'os.system', which is not on the list" in said
    assert "net/data.pkl, byte 20" in said and "state_dict()" in said


# Bombs -------------------------------------------------------------------------------------------


def bombs() -> dict[str, bytes]:
    many = 60_000
    ordered = b"ccollections\nOrderedDict\n"
    return {
        "text that is not there": b"X\xff\xff\xff\x7fa",
        "a long that is not there": b"\x8b\xff\xff\xff\x7f",
        "a frame that is not there": b"\x95" + b"\xff" * 8,
        "a long of 255 bytes": b"\x8a\xff" + b"\xff" * 255,
        "a memo of 2^32": b"Nr\xff\xff\xff\xff0",
        "deep lists": b"]" * many + b"a" * (many - 1),
        "deep tuples": b")" + b"\x85" * many,
        "deep dictionaries": b"}K\x01" * (many // 2) + b"N" + b"s" * (many // 2),
        "deep marks": b"(" * many + b"t" * many,
        "doubled tuples": b")q\0" + b"h\0\x86q\0" * 10_000,
        "doubled lists": b"]q\0" + b"0](h\0h\0eq\0" * 10_000,
        "a list in itself": b"]q\0h\0a",
        "a dictionary in itself": b"}q\0" + text("a") + b"h\0s",
        "many dictionaries": ordered + b"q\0" + b"](" + b"h\0)R" * 30_000 + b"e",
        "many names": b"}(" + b"".join(text(str(i)) + b"N" for i in range(110_000)) + b"u",
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_bounded_in_time_and_memory(file: Path, name: str) -> None:
    data = packed(b"\x80\x04" + bombs()[name] + b".")
    tracemalloc.start()
    begun = time.process_time()
    attempt(file, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(data) + 200e6, f"{peak / 1e6:.0f} MB"
    assert time.process_time() - begun < 30  # a bound, not a measurement: bombs would take years


def test_a_pickle_that_is_too_large_is_refused(file: Path) -> None:
    file.write_bytes(packed(b"\x80\x02" + bytes(LIMIT), crc=False))
    with pytest.raises(CheckpointError, match="a pickle of 16,000,002 bytes"):
        load_pth(file)


def test_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minigan.weights.unpickle.OPCODES", 1000)
    body = b"\x80\x02](" + b"N" * 995 + b"e."
    assert len(unpickle(body, {}, lambda identity: None)) == 995
    with pytest.raises(Refused, match="more than 1,000 steps"):
        unpickle(body.replace(b"N", b"NN", 1), {}, lambda identity: None)


def test_one_storage_cannot_stand_for_many_tensors(file: Path) -> None:
    """A thousand expanded tensors of 60 MB are views, but whoever copies them would need 60 GB."""
    one = Tensor(bytes(4), size=(15_000_000,), stride=(0,), key="0")
    body, _ = dump({str(i): one for i in range(1000)})
    file.write_bytes(packed(body, {"0": bytes(4)}))
    with pytest.raises(CheckpointError, match=r"key '1', (?s:.*)") as caught:
        load_pth(file)
    assert "much larger than the file" in str(caught.value)


def test_a_directory_of_many_members_is_refused(file: Path) -> None:
    members = {f"n/data/{i}": b"" for i in range(500)}
    data = archive(members | {"n/data.pkl": b"\x80\x02K\x05."})
    file.write_bytes(data)
    assert load_pth(file) == 5
    end = data.rindex(b"PK\x05\x06")
    start = data.index(b"PK\x01\x02")
    record = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(12)
    record += (2**40).to_bytes(8, "little") * 2
    record += (end - start).to_bytes(8, "little") + start.to_bytes(8, "little")
    locator = b"PK\x06\x07" + bytes(4) + end.to_bytes(8, "little") + b"\x01\0\0\0"
    last = b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2)
    file.write_bytes(data[:end] + record + locator + last)
    with pytest.raises(CheckpointError, match="claims 1099511627776 members"):
        load_pth(file)
