"""The figures as a table for people: each beside what real images and a pixel Gaussian get."""

from __future__ import annotations

from collections.abc import Mapping

# name -> what it tells, and whether more or less of it is better
MEANING = {
    "fid": "Fréchet distance of features: low is good",
    "kid": "kernel distance of features: low is good",
    "precision": "samples among real images: high is good",
    "recall": "real images among samples: high is good",
    "density": "precision by counts of neighbours",
    "coverage": "real images with a sample nearby",
    "score": "sure of each, all classes: high is good",
    "confidence": "mean probability of the likeliest class",
    "class_kl": "KL of the classes' shares from real ones",
    "classes": "classes with a fifth of an even share",
    "min_class": "smallest share of a class",
    "class_accuracy": "samples of the class asked for",
    "memorised": "0: training images are no nearer; 1: always",
    "copies": "as near to one as 1 % of new images are",
}


def table(
    figures: Mapping[str, float], floor: Mapping[str, float], gaussian: Mapping[str, float]
) -> list[str]:
    """Lines of text, one per figure."""
    rows: list[tuple[str, ...]] = [
        ("", f"N = {figures['n']:,}", f"{floor['n']:,} real", "pixel Gaussian", "")
    ]
    for name, meaning in MEANING.items():
        if name in figures:
            columns = (_cell(name, column) for column in (figures, floor, gaussian))
            rows.append((name, *columns, meaning))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  "
        f"{row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    ]


def _cell(name: str, figures: Mapping[str, float]) -> str:
    if name not in figures:
        return "-"
    text = f"{figures[name]:.4g}"
    if f"{name}_error" in figures:
        text += f" ± {figures[f'{name}_error']:.1g}"
    return text
