"""What can be measured side by side, and how a list of it is measured within a time budget."""

from __future__ import annotations

import datetime
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.peaks import Peaks, peaks
from benchmarks.results import Results
from benchmarks.timing import TURN, WAKE, Side, alternate, versus

SAME = 1e-3  # relative error above which a side computes something else


class DifferentResults(Exception):
    """A side does not compute what it should; its time would mean nothing."""


@dataclass
class Work:
    """A case that is ready to run.

    Attributes
    ----------
    sides : ours first, then PyTorch in each memory order (none where it is not installed).
    exact : what the results should be, in float64; None where that is not compared.
    taken : the part of a result that is compared with it, as a NumPy array.
    extra : more for the results.
    """

    sides: list[Side]
    exact: Callable[[], Any] | None = None
    taken: Callable[[Any], Any] = lambda result: result
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Case:
    """Something to measure, not built yet.

    Attributes
    ----------
    name, family : names are unique; summaries are made per family.
    build : makes the `Work`.
    flops, nbytes : that it needs at least, once per call.
    labels : more names, such as {"direction": "forward"}.
    """

    name: str
    family: str
    build: Callable[[], Work]
    flops: float
    nbytes: float
    labels: dict[str, str] = field(default_factory=dict)


def result_array(result: Any) -> Any:
    """The array of a result, or of the first of several gradients."""
    first = result[0] if isinstance(result, list | tuple) else result
    if hasattr(first, "node"):
        return first.data
    return first if isinstance(first, np.ndarray) else first.detach().numpy()


def words(pattern: str | None, name: str) -> bool:
    """Whether a name contains one of the words of `pattern` (separated by commas), if any."""
    wanted = [word.strip() for word in (pattern or "").split(",") if word.strip()]
    return not wanted or any(word in name for word in wanted)


def measure_all(
    cases: Sequence[Case],
    seconds: float,
    done: Callable[[Case, dict[str, Any]], None],
    failed: Callable[[Case, Exception], None],
) -> None:
    """Measure each case and hand the result to `done`; about `seconds` for all of them.

    Every case gets about as many rounds as the others: time is shared by what a round is expected
    to cost. A case that fails does not end the others.
    """
    limits = peaks()
    costs = [_round_cost(case, limits) for case in cases]
    end = time.perf_counter() + seconds
    for i, case in enumerate(cases):
        left = max(0.0, end - time.perf_counter())
        try:
            done(case, measure(case, left * costs[i] / sum(costs[i:])))
        except Exception as error:
            failed(case, error)
        gc.collect()


def measure_section(
    section: str,
    cases: Sequence[Case],
    options: Any,
    results: Results,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """Measure the cases that `options.only` chooses into `results`, and tell how it goes."""
    chosen = [case for case in cases if words(options.only, case.name)]
    if not chosen:
        say(f"nothing is called '{options.only}'; --list shows the names")
    results.data["peaks"] = peaks().report()
    done = 0

    def keep(case: Case, entry: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        results.add(section, case.name, entry)
        say(f"{done:3d}/{len(chosen)} {line(case.name, entry)}")

    def complain(case: Case, error: Exception) -> None:
        nonlocal done
        done += 1
        results.fail(section, case.name, error)
        say(f"{done:3d}/{len(chosen)} {case.name}  FAILED {type(error).__name__}: {error}")

    measure_all(chosen, seconds, keep, complain)


def _round_cost(case: Case, limits: Peaks) -> float:
    """Seconds of a round of three sides, guessed from the floor."""
    return 3 * (WAKE + TURN + 3 * limits.floor(case.flops, case.nbytes))


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """One entry of the results."""
    limits = peaks()
    start = time.perf_counter()
    work = case.build()
    wrong = _errors(work)
    left = seconds - (time.perf_counter() - start)
    entry: dict[str, Any] = {"family": case.family, **case.labels}
    entry |= versus(alternate(work.sides, max(left, 0.0)))
    entry |= {
        "gflop": case.flops / 1e9,
        "mbyte": case.nbytes / 1e6,
        "floor_ms": limits.floor(case.flops, case.nbytes) * 1e3,
        "date": datetime.date.today().isoformat(),
    }
    entry |= work.extra
    entry["reached"] = {name: entry["floor_ms"] / ms["median"] for name, ms in entry["ms"].items()}
    return entry | ({"error": wrong} if wrong else {})


def _errors(work: Work) -> dict[str, Any]:
    """The error of each side against float64. This also runs each side for the first time."""
    if work.exact is None:
        return {}
    exact = work.exact()
    found = {}
    for side in work.sides:
        found[side.name] = errors(work.taken(side.call(side.prepare())), exact)
        if not found[side.name]["l2"] < SAME:
            wrong = found[side.name]["l2"]
            raise DifferentResults(f"{side.name} is off by {wrong:.1e} (relative L2)")
    return found


def errors(result: Any, exact: Any) -> dict[str, float]:
    """How far `result` is from `exact` (float64): relative L2, and largest over the spread.

    l2 = |result - exact| / |exact| with Euclidean norms; max = largest |difference| / std(exact),
    or over the largest |exact| where all are equal, as in a single number. 0 / 0 is 0.
    """
    difference = np.abs(np.asarray(result, np.float64) - exact)
    spread = float(np.std(exact)) or float(np.abs(exact).max(initial=0))
    return {
        "l2": _over(float(np.linalg.norm(difference)), float(np.linalg.norm(exact))),
        "max": _over(float(difference.max(initial=0)), spread),
    }


def _over(a: float, b: float) -> float:
    return a / b if b else float("inf") if a else 0.0


def line(name: str, entry: dict[str, Any]) -> str:
    """An entry on one line, for the terminal."""
    ours = entry["ms"]["minigan"]["median"]
    text = f"{name:<32} minigan {_ms(ours)}"
    if "best" in entry:
        best = entry["best"]
        ratio = entry["ratio"]
        text += (
            f"  {best:<19} {_ms(entry['ms'][best]['median'])}  torch / minigan "
            f"{ratio['median']:5.2f} ({ratio['q1']:.2f}-{ratio['q3']:.2f})"
        )
    text += f"  reached {entry['reached']['minigan']:.2f}"
    if "best" in entry:
        text += f" : {entry['reached'][entry['best']]:.2f}"
    if "error" in entry:
        text += f"  error {entry['error']['minigan']['l2']:.0e}"
        if "best" in entry:
            text += f" : {entry['error'][entry['best']]['l2']:.0e}"
    return text if "algorithm" not in entry else f"{text}  {entry['algorithm']}"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:9.3f} ms" if milliseconds < 100 else f"{milliseconds:9.1f} ms"
