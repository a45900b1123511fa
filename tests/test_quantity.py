import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkspace.errors import UserError
from lkspace.quantity import Bound, human


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency<=5ms", Bound("latency", "<=", 5.0)),
        ("latency <= 500us", Bound("latency", "<=", 0.5)),
        ("latency<=0.02s", Bound("latency", "<=", 20.0)),
        ("params<=2M", Bound("params", "<=", 2e6)),
        ("flops<=300M", Bound("flops", "<=", 3e8)),
        ("flops>=1e3", Bound("flops", ">=", 1000.0)),
        ("accuracy>=80%", Bound("accuracy", ">=", 0.8)),
        ("accuracy>=0.8", Bound("accuracy", ">=", 0.8)),
    ],
)
def test_a_bound_is_kept_in_the_unit_of_its_score(text: str, expected: Bound) -> None:
    bound = Bound.parse(text)
    assert (bound.name, bound.relation) == (expected.name, expected.relation)
    assert bound.value == pytest.approx(expected.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("latency<5ms", "NAME<=VALUE"),
        ("latency<=5", "'ms'"),
        ("latency<=5M", "'ms'"),
        ("params<=2ms", "'M'"),
        ("flops<=1.2.3M", "not a number"),
        ("flops<=1e999", "not a number"),
        ("", "NAME<=VALUE"),
        ("flops<=nan", "NAME<=VALUE"),
        ("accuracy>=90", "accuracy>=80%"),
        ("latency<=-5ms", "never less than 0"),
        ("Latency<=5ms", "NAME<=VALUE"),
        ("accuracy>=100.1%", "part of 1"),
    ],
)
def test_a_wrong_bound_says_what_was_expected(text: str, word: str) -> None:
    with pytest.raises(UserError, match=word.replace("(", r"\(")):
        Bound.parse(text)


def test_nan_keeps_no_bound_and_the_edge_is_inside() -> None:
    bound = Bound("latency", "<=", 5.0)
    assert bound.holds(5.0)
    assert not bound.holds(math.nan)
    assert not Bound("accuracy", ">=", 0.5).holds(math.nan)


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (Bound("top5", ">=", 0.9), "top5>=0.9"),
        (Bound("my_score2", ">=", -1.25), "my_score2>=-1.25"),
        (Bound("accuracy", "<=", 1.5), "accuracy<=1.5"),
    ],
)
def test_bounds_on_scores_of_others_are_shown_too(bound: Bound, text: str) -> None:
    assert str(bound) == text
    if bound.name != "accuracy":
        assert Bound.parse(text) == bound


@given(st.sampled_from(["latency", "params", "flops", "accuracy"]), st.sampled_from(["<=", ">="]), st.integers(1, 999))
def test_a_bound_as_text_reads_back_as_itself(name: str, relation: str, value: int) -> None:
    bound = Bound(name, relation, value / (1000 if name == "accuracy" else 10))  # type: ignore[arg-type]
    again = Bound.parse(str(bound))
    assert (again.name, again.relation) == (name, relation)
    assert again.value == pytest.approx(bound.value, rel=1e-12)


def test_a_bound_that_three_digits_do_not_tell_is_told_to_the_last() -> None:
    texts = {"params<=2M": "params<=2M", "params<=1234567": "params<=1234567", "latency<=5.003ms": "latency<=5.003ms"}
    texts |= {
        "accuracy>=79.96%": "accuracy>=0.7996",
        "flops<=999.7K": "flops<=999700",
        "latency<=2000us": "latency<=2ms",
    }
    assert {text: str(Bound.parse(text)) for text in texts} == texts


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (15353525248, "", "15.4 G"),
        (999, "", "999"),
        (0.00421, "ms", "4.21 us"),
        (5, "ms", "5 ms"),
        (1234, "ms", "1.23 s"),
        (0.8012, "%", "80.1 %"),
        (999_499, "", "999 K"),
        (999_700, "", "1 M"),
        (999.6, "ms", "1 s"),
        (0.99961, "ms", "1 ms"),
    ],
)
def test_three_digits_are_what_a_person_reads(value: float, unit: str, text: str) -> None:
    assert human(value, unit) == text
