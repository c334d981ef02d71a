"""What the library says, in the words of the command line: its options, and lines of the file."""

from __future__ import annotations

import re
from collections.abc import Callable

WORDS = {
    r"^(select|components|predict_proba): ": "",
    r"components=\[\(\.\.\., 'categorical', \['(.*?)'\]\)\]": r"--categorical '\1'",
    r"give the estimator method='(\w+)' or '(\w+)'": r"give --method \1 or \2",
    r"method='(\w+)'": r"--method \1",
    r"criterion='(\w+)'": r"--criterion \1",
    r"\bn_init\b": "--starts",
    r"\bmax_iter\b": "--max-iter",
    r"\bn_draws\b": "--draws",
    r"\bn_warmup\b": "--warmup",
    r"\bn_chains\b": "--chains",
    r"\bn_components\b": "-k",
    r"\brandom_state\b": "--seed",
    r"\bcovariance_type\b": "--covariance",
    r"; n_samples = (\d+)": r", and there are \1",
}


def in_options(text: str, place: Callable[[int], str] | None = None) -> str:
    """A message for someone at a terminal.

    Parameters
    ----------
    text : str
        As the library says it, to someone who writes Python.
    place : callable, optional
        Where a row, counted from 0, stands: ``"line 12"``.
    """
    # What is quoted is the user's own (a column may be called max_iter), but for values of options.
    for pattern, words in WORDS.items():
        text = re.sub(rf"(?<!')(?:{pattern})(?!')" if "\\b" in pattern else pattern, words, text)
    if place is not None:
        text = re.sub(r"\brow (\d+)\b", lambda found: place(int(found[1])), text)
    return text
