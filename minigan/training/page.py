"""The frame of a page, and its small parts: badges, pictures, tables."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from minigan.training.charts import NONE, number
from minigan.training.health import Verdict

_PICTURE_WIDTH = 500  # on the page, in CSS pixels
_CLASS = {"ok": "ok", "D winning": "warn", "collapse?": "warn"}


def page(title: str, body: Iterable[str]) -> str:
    """A whole document. Its policy lets nothing be fetched, and no script run but ours."""
    script, style = asset("report.js"), asset("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>\n"
        + "\n".join(body)
        + f"\n<footer>made by minigan</footer>\n<script>{script}</script></body></html>\n"
    )


def asset(name: str) -> str:
    """Read a file of minigan/training/assets."""
    return resources.files("minigan.training").joinpath("assets").joinpath(name).read_text("utf-8")


def badge(verdict: Verdict) -> str:
    return f'<span class="badge {_CLASS.get(verdict.word, "bad")}">{escape(verdict.word)}</span>'


def sentence(text: str) -> str:
    """With a capital letter, unless it begins with a name such as loss_D, and a full stop."""
    if text.split(maxsplit=1)[0].isalpha():
        text = text[0].upper() + text[1:]
    return text.rstrip(".") + "."


def picture(
    name: str, source: str, size: tuple[int, ...], attribute: str = "", note: str = ""
) -> str:
    """One picture in a card, enlarged by a whole number so that its pixels stay even."""
    width = size[0] * max(1, _PICTURE_WIDTH // max(1, size[0]))
    return (
        f'<figure class="film card"><figcaption><b>{escape(name)}</b>'
        f'<span class="soft">{escape(note)}</span></figcaption>'
        f'<img src="{source}" alt="{escape(name)}" style="width:{width}px" {attribute}></figure>'
    )


def line_table(lines: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for line in lines for name in line))
    head = "".join(f'<th class="n">{escape(name)}</th>' for name in names)
    rows = "".join(
        "<tr>" + "".join(f'<td class="n">{cell(line.get(name))}</td>' for name in names) + "</tr>"
        for line in lines
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return NONE if value is None else escape(str(value))


def key_table(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in values.items()
        if value is not None and name != "command"
    )
    return f"<table>{rows}</table>"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
