"""What a file is if torch.save did not write it as it does today, and what to do with it."""

from __future__ import annotations

from pathlib import Path

from minigan.errors import CheckpointError

FETCH_AGAIN = "fetch the file again"

_RESAVE = (
    "where PyTorch is installed, save it anew: torch.save(torch.load({name!r}, "
    "map_location='cpu', weights_only={safe}), 'new.pth')"
)
_TRUST = "; that runs the code in the file, so do it only with a file that you trust"


def check_format(path: Path, head: bytes) -> None:
    """Raise CheckpointError unless the first 512 bytes of a file are those of a zip archive."""
    if head.startswith(b"PK\x03\x04"):
        return
    what, fix = f"{path} is no file of torch.save", "check what it is"
    if not head:
        what, fix = f"{path} is empty", FETCH_AGAIN
    elif head[257:262] == b"ustar":
        what = f"{path} is in the tar format of PyTorch before 0.1.10, which is not read"
        fix = _RESAVE.format(name=path.name, safe=False) + _TRUST
    elif head.startswith(b"\x80"):
        what = f"{path} is in the old format of torch.save (before PyTorch 1.6), which is not read"
        fix = _RESAVE.format(name=path.name, safe=True)
    elif head.lstrip()[:1] == b"<":
        what, fix = f"{path} is a web page, not weights", "fetch the file itself, not its page"
    elif head.startswith(b"version https://git-lfs"):
        what, fix = f"{path} stands for a file of Git LFS", "fetch the file itself: git lfs pull"
    elif head[8:9] == b"{":
        what, fix = f"{path} is a safetensors file", "give it the ending .safetensors"
    raise CheckpointError(what, why="the zip format of torch.save begins with PK", fix=fix)
