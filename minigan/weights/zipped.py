"""A reader of plain zip archives as `torch.save` writes them: members are stored, not compressed.

Nothing is unpacked to disk, and every number in the archive is checked against the size of the
file before it is used. So an archive cannot make the reader take more memory than the file has
bytes: there are no compressed members (no zip bombs), none of them overlap, none has two names,
and member names are only ever compared, never opened as paths.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64, _LOCATOR = b"PK\x06\x06", b"PK\x06\x07"
_MEMBERS = 100_000  # more than any network has tensors
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF  # "the number stands in the zip64 record"


class ZipDamage(ValueError):
    """What is wrong with an archive, and at which byte."""

    def __init__(self, what: str, offset: int | None = None) -> None:
        super().__init__(what)
        self.what, self.offset = what, offset


@dataclass(frozen=True)
class Member:
    """A member of an archive: its bytes are data[start : start + size].

    `crc` is 0 if the writer computed none.
    """

    name: str
    start: int
    size: int
    crc: int


class Zipped:
    """The members of the archive in `data`.

    Raises ZipDamage if anything is inconsistent.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        count, start, size = self._directory()
        if count > _MEMBERS:
            raise ZipDamage(f"claims {count} members; at most {_MEMBERS} are read", start)
        if count * 46 > size or start + size > len(data):
            raise ZipDamage("is damaged or cut short: its directory does not fit into it", start)
        self.members: dict[str, Member] = {}
        extents, at = [], start
        for _ in range(count):
            member, local, at = self._entry(at, start + size)
            if member.name in self.members:
                raise ZipDamage(f"holds {member.name!r} twice", at)
            if member.start + member.size > start:
                raise ZipDamage(f"is damaged: {member.name!r} reaches over its directory", local)
            self.members[member.name] = member
            extents.append((local, member.start + member.size, member.name))
        extents.sort()
        for (_, end, first), (begin, _, second) in pairwise(extents):
            if begin < end:
                raise ZipDamage(f"is damaged: {first!r} and {second!r} overlap", begin)

    def read(self, name: str) -> memoryview:
        """The bytes of a member, after comparing their checksum."""
        member = self.members[name]
        view = memoryview(self.data)[member.start : member.start + member.size]
        if member.crc and zlib.crc32(view) != member.crc:
            raise ZipDamage(
                f"is damaged: the bytes of {name!r} changed since they were written", member.start
            )
        return view

    def _directory(self) -> tuple[int, int, int]:
        """(number of members, start, size) of the central directory, from the end record."""
        at = self.data.rfind(_END, max(0, len(self.data) - 22 - _FULL16))
        if at < 0 or at + 22 > len(self.data):
            raise ZipDamage("is cut short: the directory at its end is missing", len(self.data))
        disk, first, here, count, size, start, comment = self._unpack("<HHHHIIH", at + 4)
        if at + 22 + comment != len(self.data):
            raise ZipDamage("is damaged: bytes follow the end of the archive", at)
        if _FULL16 in (here, count) or _FULL32 in (size, start):
            return self._directory64(at)
        if disk or first or here != count:
            raise ZipDamage("is one part of an archive in several parts", at)
        return count, start, size

    def _directory64(self, end: int) -> tuple[int, int, int]:
        if end < 20 or self.data[end - 20 : end - 16] != _LOCATOR:
            raise ZipDamage("is damaged: its zip64 record is missing", end)
        (at,) = self._unpack("<Q", end - 12)
        if at + 56 > end or self.data[at : at + 4] != _END64:
            raise ZipDamage("is damaged: its zip64 record is missing", end)
        disk, first, here, count, size, start = self._unpack("<IIQQQQ", at + 16)
        if disk or first or here != count:
            raise ZipDamage("is one part of an archive in several parts", at)
        return count, start, size

    def _entry(self, at: int, end: int) -> tuple[Member, int, int]:
        """Read the directory entry at `at`: (member, where it begins, where the next entry is)."""
        if at + 46 > end or self.data[at : at + 4] != _CENTRAL:
            raise ZipDamage("is damaged: a directory entry is not where it should be", at)
        flags, method = self._unpack("<HH", at + 8)
        crc, packed, size, n, extra, comment = self._unpack("<IIIHHH", at + 16)
        (local,) = self._unpack("<I", at + 42)
        following = at + 46 + n + extra + comment
        if following > end:
            raise ZipDamage("is damaged: a directory entry reaches over its end", at)
        raw = self.data[at + 46 : at + 46 + n]
        name = raw.decode("utf-8", "backslashreplace")
        packed, size, local = self._wide(at + 46 + n, extra, [size, packed, local])
        if flags & 1:
            raise ZipDamage(f"is encrypted: {name!r}", at)
        if method != 0 or packed != size:
            raise ZipDamage(f"is compressed, or lies about its size: {name!r}", at)
        if local + 30 + n > len(self.data) or self.data[local : local + 4] != _LOCAL:
            raise ZipDamage(f"is damaged: {name!r} is not where its directory says", local)
        n_local, extra_local = self._unpack("<HH", local + 26)
        if self.data[local + 30 : local + 30 + n_local] != raw:
            raise ZipDamage(f"is damaged: {name!r} has another name in front of its bytes", local)
        return Member(name, local + 30 + n + extra_local, size, crc), local, following

    def _wide(self, at: int, length: int, short: list[int]) -> tuple[int, int, int]:
        """(packed, size, local) where those of 32 bits that are full stand in a zip64 field."""
        missing = [i for i, value in enumerate(short) if value == _FULL32]
        end = at + length
        while missing and at + 4 <= end:
            kind, n = self._unpack("<HH", at)
            if kind == 1 and n >= 8 * len(missing) and at + 4 + n <= end:
                for i, value in zip(
                    missing, self._unpack(f"<{len(missing)}Q", at + 4), strict=True
                ):
                    short[i] = value
                missing = []
            at += 4 + n
        if missing:
            raise ZipDamage("is damaged: a zip64 size is missing", at)
        size, packed, local = short
        return packed, size, local

    def _unpack(self, code: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(code, self.data, at)
