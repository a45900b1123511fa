import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lkspace.errors import UserError
from lkspace.space import Architecture, SearchSpace, shipped

from .conftest import build, keeps, make, points, spaces


def raw_params(space: SearchSpace, index: int) -> dict[str, Any]:
    """Choices of one point of the product."""
    params = {}
    for variable in space.variables:
        index, digit = divmod(index, len(variable.choices))
        params[variable.name] = variable.choices[digit]
    return params


@settings(deadline=None, max_examples=60)
@given(spaces())
def test_enumeration_is_brute_force(fields: dict[str, Any]) -> None:
    space = SearchSpace.from_dict(fields)
    raw = [build(fields, point) for point in points(fields)]
    assert space.size == len(raw)
    found = list(space.enumerate())
    assert len(found) == len(set(found))
    assert set(found) == {a for a in raw if keeps(fields, a)}


@settings(deadline=None, max_examples=60)
@given(spaces(), st.integers(0, 10**9))
def test_what_is_decoded_can_be_found_again(fields: dict[str, Any], index: int) -> None:
    space = SearchSpace.from_dict(fields)
    a = space.decode(raw_params(space, index))
    assert a == a.canonical(space.image_size)
    params = space.params_of(a)
    assert params is not None
    assert list(params) == [variable.name for variable in space.variables]
    assert space.decode(params) == a


@settings(deadline=None, max_examples=60)
@given(spaces())
@example(make(kernels={"per_stage": [3, 5, 7]}, reparam={"whole": [3, 5]}))
@example(make(kernels={"per_stage": [3, 5]}, reparam={"whole": [[3, 3], [1, 3]]}))
def test_different_architectures_have_different_vectors_in_the_unit_cube(fields: dict[str, Any]) -> None:
    space = SearchSpace.from_dict(fields)
    architectures = {build(fields, point) for point in points(fields)}
    vectors = {a: space.encode(a) for a in architectures}
    for vector in vectors.values():
        assert vector.shape == (len(space.axes),)
        assert np.all((vector >= 0) & (vector <= 1))
    assert len({v.tobytes() for v in vectors.values()}) == len(architectures)


@settings(deadline=None, max_examples=60)
@given(spaces(), st.integers(0, 10**9))
def test_a_larger_choice_is_further_along_its_axis(fields: dict[str, Any], index: int) -> None:
    space = SearchSpace.from_dict(fields)
    params = raw_params(space, index)
    for variable in space.variables:
        if variable.ordered and variable.field != "reparam":
            rows = np.array([space.encode(space.decode(params | {variable.name: c})) for c in variable.choices])
            others = [i for i, axis in enumerate(space.axes) if axis.field == variable.field]
            assert np.all(np.diff(rows[:, others], axis=0) >= 0)


@settings(deadline=None, max_examples=60)
@given(spaces())
def test_yaml_both_ways(fields: dict[str, Any]) -> None:
    import yaml

    space = SearchSpace.from_dict(fields)
    again = SearchSpace.from_dict(yaml.safe_load(space.to_yaml()))
    assert again == space
    assert again.to_yaml() == space.to_yaml()


def test_reference_points_survive_yaml(tmp_path: Any) -> None:
    space = SearchSpace.from_dict(make(reference_points=["toy-big"], ffn_ratio=[4]))
    file = tmp_path / "again.yaml"
    file.write_text(space.to_yaml())
    again = SearchSpace.load(file)
    assert again == space
    assert again.references[0].name == "toy-big"


def test_samples_keep_the_constraints_and_follow_the_seed() -> None:
    space = SearchSpace.from_dict(make(constraints=["kernels non-increasing", "params<=3K"]))
    first = [space.sample(np.random.default_rng(5)) for _ in range(2)]
    assert first[0] == first[1]
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(200)]
    assert all(not space.violations(a) for a in drawn)
    assert len(set(drawn)) > 50


def test_samples_are_uniform_over_feasible_points() -> None:
    """Chi-square against the number of raw points that build each architecture."""
    fields = make(
        constraints=["kernels non-increasing"], shortcut={"whole": [True]}, ffn_ratio=..., channels={"whole": [8]}
    )
    space = SearchSpace.from_dict(fields)
    weights = Counter(a for a in (build(fields, point) for point in points(fields)) if keeps(fields, a))
    assert max(weights.values()) > 1  # canonical form folds points together here
    rng, draws = np.random.default_rng(1), 20_000
    seen = Counter(space.sample(rng) for _ in range(draws))
    assert set(seen) == set(weights)
    total = sum(weights.values())
    expected = {a: draws * w / total for a, w in weights.items()}
    chi = sum((seen[a] - e) ** 2 / e for a, e in expected.items())
    freedom = len(weights) - 1
    # Wilson-Hilferty: the 99.9 % point of chi-square.
    assert chi < freedom * (1 - 2 / (9 * freedom) + 3.09 * np.sqrt(2 / (9 * freedom))) ** 3


def test_a_space_that_constraints_empty_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lkspace.space.search_space.SAMPLE_TRIES", 2000)
    space = SearchSpace.from_dict(make(constraints=["params<=5"]))
    assert list(space.enumerate()) == []
    with pytest.raises(UserError, match=r"small: none of 2000 random points keeps the constraints params<=5; loosen"):
        space.sample(np.random.default_rng(0))


def test_violations_say_what_there_is() -> None:
    space = SearchSpace.from_dict(make(constraints=["params<=1K", "kernels non-increasing"]))
    a = space.decode(
        {"blocks_1": 1, "blocks_2": 1, "channels": "4-8", "kernels_1": 3, "kernels_2": 7, "reparam": None}
        | {"shortcut": True, "ffn_ratio": 2.0}
    )
    # 4 (9 + 8) + 8 (49 + 16) + 3
    assert space.costs(a)["params"] == 591
    assert space.violations(a) == ["kernels non-increasing"]
    big = Architecture.from_dict(a.to_dict() | {"kernels": [31, 15]})
    assert space.violations(big) == ["params<=1K (it has 5.81 K)"]
    assert not space.feasible(a)
    assert not space.feasible(big)


def test_foreign_architectures_are_none_and_still_encoded() -> None:
    space = SearchSpace.from_dict(make())
    inside = next(space.enumerate())
    for changes in ({"kernels": [5, 3]}, {"blocks": [9, 1]}, {"stem_stride": 2}, {"family": "other"}, {"dw_ratio": 2}):
        foreign = Architecture.from_dict(inside.to_dict() | changes)
        assert space.params_of(foreign) is None
        vector = space.encode(foreign)
        assert np.all((vector >= 0) & (vector <= 1))
    three = Architecture("toy", (1,) * 3, (4,) * 3, (3,) * 3, (None,) * 3, (True,) * 3, stem_stride=1)
    assert space.params_of(three) is None


def test_encoding_is_by_value_not_by_position() -> None:
    space = SearchSpace.from_dict(make(kernels={"per_stage": [[3, 9, 27], [3]]}, image_size=64))
    [axis] = [i for i, axis in enumerate(space.axes) if axis.field == "kernels"]
    base = next(space.enumerate()).to_dict()
    at = [space.encode(Architecture.from_dict(base | {"kernels": [k, 3]}))[axis] for k in (1, 3, 9, 27, 81)]
    np.testing.assert_allclose(at, [0, 0, 0.5, 1, 1])


def test_decode_names_what_is_wrong() -> None:
    space = SearchSpace.from_dict(make())
    params = raw_params(space, 0)
    with pytest.raises(UserError, match="small: kernels_2 is 8, expected one of 3, 7, 15, 31"):
        space.decode(params | {"kernels_2": 8})
    with pytest.raises(UserError, match="parameter 'kernel' is unknown; known: blocks_1, "):
        space.decode(params | {"kernel": 8})
    params.pop("channels")
    with pytest.raises(UserError, match="parameter 'channels' is missing"):
        space.decode(params)


def test_large_spaces_refuse_to_be_enumerated() -> None:
    with pytest.raises(UserError, match=r"replknet has .* points, more than the 200,000 that can be enumerated"):
        SearchSpace.load("replknet").enumerate()


def test_other_data_change_canonical_form_and_costs() -> None:
    space = SearchSpace.from_dict(
        make(
            reference_points=[
                {"name": "a", "kernels": [31, 31], "blocks": 1, "channels": [4, 8], "reparam": 3, "shortcut": True}
                | {"ffn_ratio": 4},
                {"name": "c", "kernels": [3, 3], "blocks": 1, "channels": [4, 8], "reparam": "none", "shortcut": True}
                | {"ffn_ratio": 4},
                {"name": "b", "kernels": [31, 15], "blocks": 1, "channels": [4, 8], "reparam": 3, "shortcut": True}
                | {"ffn_ratio": 4},
            ],
            image_size=64,
        )
    )
    small = space.at(image_size=8, classes=7)
    assert (small.image_size, small.classes) == (8, 7)
    assert [r.name for r in small.references] == ["a", "c"]  # at 8 px a and b are K [15, 7]
    assert small.reference_points[0].kernels == (15, 7)
    assert small.size == space.size
    assert small.costs(small.reference_points[0])["params"] == 4 * (225 + 16) + 8 * (49 + 32) + 7
    assert space.at() == space


@pytest.mark.parametrize("name", shipped())
def test_shipped_spaces(name: str) -> None:
    space = SearchSpace.load(name)
    assert space.name == name
    assert space.description
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(50)]
    assert all(space.decode(space.params_of(a) or {}) == a for a in (*drawn, *space.reference_points))
    vectors = {space.encode(a).tobytes() for a in (*drawn, *space.reference_points)}
    assert len(vectors) == len({*drawn, *space.reference_points})
    assert SearchSpace.from_dict(space.to_dict()) == space


def test_micro_is_small_and_tiny_is_large() -> None:
    micro, tiny = SearchSpace.load("replknet-micro"), SearchSpace.load("replknet-tiny")
    assert micro.size < 1000
    assert 20 < len(list(micro.enumerate())) < 1000
    assert micro.image_size == 32
    assert tiny.size > 20_000
    assert tiny.image_size == 64


def test_replknet_holds_every_published_model() -> None:
    space = SearchSpace.load("replknet")
    names = {reference.name for reference in space.references}
    assert names == {f"replknet-{n}" for n in ("3", "7", "13", "25", "31b", "31l", "xl")}
    assert all(space.params_of(a) is not None for a in space.reference_points)
    assert space.image_size == 224


def test_pickles(tmp_path: Any) -> None:
    import pickle

    space = SearchSpace.load("replknet-micro")
    assert pickle.loads(pickle.dumps(space)) == space
    assert hash(space) == hash(SearchSpace.load("replknet-micro"))


def test_reading_a_recorded_space_needs_no_torch() -> None:
    fields = SearchSpace.load("replknet-tiny").to_dict()
    code = (
        "import sys; from lkspace.space import SearchSpace;"
        f"s = SearchSpace.from_dict({fields!r}); s.encode(s.reference_points[0]); s.neighbours;"
        "print('torch' in sys.modules, 'ray' in sys.modules)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.split() == ["False", "False"]
