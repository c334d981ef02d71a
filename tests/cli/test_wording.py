"""What the library says to someone who writes Python, said to someone at a terminal."""

import pytest

from marginax.cli.wording import in_options


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "only 1 of 10 starts reached it; raise n_init, or take fewer components.",
            "only 1 of 10 starts reached it; raise --starts, or take fewer components.",
        ),
        ("Raise n_draws and n_warmup.", "Raise --draws and --warmup."),
        ("Fit with method='nuts' or method='vi'.", "Fit with --method nuts or --method vi."),
        (
            "select: PSIS-LOO needs posterior draws; give the estimator method='nuts' or 'vi', or take "
            "criterion='bic'.",
            "PSIS-LOO needs posterior draws; give --method nuts or vi, or take --criterion bic.",
        ),
        (
            "make it categorical: components=[(..., 'categorical', ['a b'])].",
            "make it categorical: --categorical 'a b'.",
        ),
        ("column 'max_iter': its cell is 1.", "column 'max_iter': its cell is 1."),
    ],
)
def test_options_of_python_are_those_of_the_command(said: str, words: str):
    assert in_options(said) == words


def test_a_row_is_where_it_stands_in_the_file():
    said = "column 'a': its cell in row 3 is 0.5"
    assert (
        in_options(said, lambda row: f"line {row + 2}") == "column 'a': its cell in line 5 is 0.5"
    )
    assert in_options(said) == said
