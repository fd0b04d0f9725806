"""Every planted bug of bugzoo.py is noticed by the check it names, which passes without it."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import io
import warnings
from collections.abc import Callable

import pytest
from bugzoo import BUGS, Bug, plant

CONTENT: set[Callable[[], None]] = set()  # checks that passed without any bug


def complaint(bug: Bug) -> str:
    """What the check says, or "" if it is content."""
    try:
        # hypothesis prints its example; planted bugs may divide by zero
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            contextvars.copy_context().run(bug.caught_by)  # grad mode may be left wrong
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    except BaseException as error:
        if isinstance(error, pytest.fail.Exception):  # pytest.raises saw no exception
            return str(error)
        raise
    finally:
        gc.enable()
    return ""


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_the_bug_is_noticed(bug: Bug) -> None:
    if bug.caught_by not in CONTENT:
        assert complaint(bug) == "", "the check fails without the bug"
        CONTENT.add(bug.caught_by)
    with pytest.MonkeyPatch.context() as patch:
        plant(patch, bug)
        assert complaint(bug), f"nobody notices: {bug.name}"


def test_the_zoo_is_large() -> None:
    assert len(BUGS) >= 50 and len({bug.name for bug in BUGS}) == len(BUGS)
