import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkspace.errors import UserError
from lkspace.space.architecture import Architecture

GOOD: dict[str, Any] = {
    "family": "replknet",
    "blocks": (1, 2, 1, 1),
    "channels": (8, 16, 24, 32),
    "kernels": (15, 9, 21, 7),
    "reparam": (5, None, 5, 3),
    "shortcut": (True, True, False, True),
    "dw_ratio": 1.5,
    "ffn_ratio": 4.0,
}

odd = st.integers(0, 40).map(lambda i: 2 * i + 1)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    n = draw(st.integers(1, 5))

    def per_stage(value: st.SearchStrategy[Any]) -> tuple[Any, ...]:
        return tuple(draw(st.lists(value, min_size=n, max_size=n)))

    return Architecture(
        family="replknet",
        blocks=per_stage(st.integers(1, 30)),
        channels=per_stage(st.integers(1, 2048)),
        kernels=per_stage(odd),
        reparam=per_stage(st.one_of(st.none(), odd)),
        shortcut=per_stage(st.booleans()),
        dw_ratio=draw(st.sampled_from([0.5, 1, 1.5, 2])),
        ffn_ratio=draw(st.sampled_from([1, 2.5, 4])),
        stem_stride=draw(st.sampled_from([1, 2, 4])),
    )


@given(architectures())
def test_json_both_ways(a: Architecture) -> None:
    again = Architecture.from_json(a.to_json())
    assert again == a
    assert hash(again) == hash(a)
    assert again.id == a.id
    assert Architecture.from_dict(a.to_dict()) == a
    assert json.loads(a.to_json()) == a.to_dict()


@given(architectures(), st.integers(1, 300))
def test_canonical_form_by_its_definition(a: Architecture, size: int) -> None:
    c = a.canonical(size)
    assert c.canonical(size) == c
    side = math.ceil(size / a.stem_stride)
    for stage in range(a.stages):
        assert a.map_sizes(size)[stage] == side
        assert c.kernels[stage] == min(a.kernels[stage], 2 * side - 1)
        small = a.reparam[stage]
        assert c.reparam[stage] == (small if small is not None and small < c.kernels[stage] else None)
        side = math.ceil(side / 2)
    unchanged = ("family", "blocks", "channels", "shortcut", "dw_ratio", "ffn_ratio", "stem_stride")
    assert all(getattr(a, name) == getattr(c, name) for name in unchanged)


def test_map_sizes_are_those_of_strided_convolutions() -> None:
    torch = pytest.importorskip("torch")
    for stride, size in ((1, 37), (2, 37), (4, 37), (4, 224), (2, 65)):
        a = Architecture.from_dict({**GOOD, "stem_stride": stride})
        x = torch.zeros(1, 1, size, size)
        halve = torch.nn.Conv2d(1, 1, 3, stride=2, padding=1)
        for _ in range({1: 0, 2: 1, 4: 2}[stride]):
            x = halve(x)
        for side in a.map_sizes(size):
            assert x.shape[-1] == side
            x = halve(x)


def test_published_maps() -> None:
    assert Architecture.from_dict(GOOD).map_sizes(224) == (56, 28, 14, 7)


def test_a_re_param_kernel_that_is_not_smaller_is_none() -> None:
    a = Architecture.from_dict({**GOOD, "kernels": (5, 3, 7, 7), "reparam": (5, 5, 5, 0)})
    assert a.reparam == (None, None, 5, None)


def test_the_id_is_the_same_in_every_process() -> None:
    a = Architecture.from_dict(GOOD)
    code = f"from lkspace.space.architecture import Architecture; print(Architecture.from_json({a.to_json()!r}).id)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.strip() == a.id
    assert a.id == "a87a5e1bd4"  # written down once: studies on disk name their trials by it


def test_one_and_true_are_not_one_architecture() -> None:
    whole = Architecture.from_dict({**GOOD, "dw_ratio": 1, "ffn_ratio": 4})
    assert whole == Architecture.from_dict({**GOOD, "dw_ratio": 1.0})
    assert whole.to_json() == Architecture.from_dict({**GOOD, "dw_ratio": 1.0}).to_json()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": ""}, "family is ''"),
        ({"blocks": ()}, "blocks is (), expected a list"),
        ({"blocks": 3}, "blocks is 3, expected a list"),
        ({"blocks": "1111"}, "blocks is '1111', expected a list"),
        ({"blocks": (0, 1, 1, 1)}, "blocks holds 0, expected a whole number from 1 to 200"),
        ({"blocks": (True, 1, 1, 1)}, "blocks holds True"),
        ({"blocks": (1, 1, 1)}, "channels has 4 entries, blocks has 3"),
        ({"blocks": (1,) * 9}, "expected at most 8 stages"),
        ({"channels": (8, 8, 8, 10**12)}, "channels holds 1000000000000, expected a whole number from 1 to 16384"),
        ({"kernels": (15, 8, 7, 7)}, "kernels holds 8, expected an odd number"),
        ({"kernels": (15, 7.0, 7, 7)}, "kernels holds 7.0"),
        ({"reparam": (4, 3, 3, 3)}, "reparam holds 4, expected an odd number"),
        ({"reparam": (False, 3, 3, 3)}, "reparam holds False"),
        ({"shortcut": (1, 1, 1, 1)}, "shortcut holds 1, expected true or false"),
        ({"dw_ratio": 0}, "dw_ratio is 0"),
        ({"ffn_ratio": float("nan")}, "ffn_ratio is nan"),
        ({"ffn_ratio": "4"}, "ffn_ratio is '4'"),
        ({"stem_stride": 3}, "stem_stride is 3, expected 1, 2 or 4"),
        ({"stem_stride": True}, "stem_stride is True"),
        ({"colour": 1}, "unknown field 'colour'; known: family, blocks"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        Architecture.from_dict(GOOD | changes)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "nul", '{"family": "replknet"}', "[" * 100_000, '{"a":' + "9" * 5000 + "}"]
)
def test_what_is_not_an_architecture_says_so(text: str) -> None:
    with pytest.raises(UserError, match="architecture: "):
        Architecture.from_json(text)


def test_text_for_a_person() -> None:
    text = "B[1,2,1,1] C[8,16,24,32] K[15,9,21,7] re-param[5,-,5,3] shortcut[yyny] dw1.5 ffn4 stem/4"
    assert str(Architecture.from_dict(GOOD)) == text
