"""Every wrong file gives one line: file, key, value, what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lkspace.errors import UserError
from lkspace.space import SearchSpace, strict_yaml

from .conftest import make


def complaint(fields: Any, tmp_path: Path) -> str:
    """What `load` says of a file with this content, without the file's name."""
    file = tmp_path / "space.yaml"
    file.write_text(fields if isinstance(fields, str) else yaml.safe_dump(fields))
    with pytest.raises(UserError) as error:
        SearchSpace.load(file)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    assert text.startswith(f"{file}: ")
    return text.removeprefix(f"{file}: ")


REFERENCE = {"blocks": 1, "channels": [4, 8], "kernels": 3, "reparam": "none", "shortcut": True, "ffn_ratio": 2}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kernel": [3]}, "unknown key 'kernel'; did you mean 'kernels'?"),
    ({"colour": 3}, "unknown key 'colour'; known: name, family,"),
    ({"kernels": ..., "kernel": [3]}, "unknown key 'kernel'; did you mean 'kernels'?"),
    ({"family": ...}, "key 'family' is missing"),
    ({"blocks": ...}, "key 'blocks' is missing"),
    ({"family": 3}, "family is 3, expected a valid string"),
    ({"family": "toyy"}, "family: unknown family 'toyy'; known: replknet, toy"),
    ({"name": ""}, "name is '', expected to have at least 1 character"),
    ({"image_size": "64px"}, "image_size is '64px', expected a valid integer"),
    ({"image_size": 0}, "image_size is 0, expected greater than or equal to 8"),
    ({"image_size": 64.0}, "image_size is 64.0, expected a valid integer"),
    ({"image_size": True}, "image_size is True, expected a valid integer"),
    ({"classes": 1}, "classes is 1, expected greater than or equal to 2"),
    ({"stem_stride": 3}, "stem_stride is 3, expected 1, 2 or 4"),
    ({"stem_stride": True}, "stem_stride is True, expected a valid integer"),
    ({"stages": 99}, "stages is 99, expected less than or equal to 8"),
    ({"kernels": [3, 5]}, "kernels is [3, 5], expected a mapping with the key per_stage or whole"),
    ({"kernels": {}}, "kernels: expected one of the keys per_stage and whole"),
    ({"kernels": {"whole": [3], "per_stage": [3]}}, "kernels: expected one of the keys per_stage and whole"),
    ({"kernels": {"each": [3]}}, "unknown key 'kernels.each'; known: per_stage, whole"),
    ({"kernels": {"whole": 3}}, "kernels.whole is 3, expected a valid list"),
    ({"kernels": {"whole": []}}, "kernels.whole is an empty list, expected at least one choice"),
    ({"kernels": {"per_stage": []}}, "kernels.per_stage is an empty list, expected at least one choice"),
    ({"kernels": {"per_stage": [[3], []]}}, "kernels.per_stage[1] is an empty list, expected at least one choice"),
    ({"kernels": {"per_stage": [[3], [3, 8]]}}, "kernels.per_stage[1][1] is 8, expected an odd number from 1 to 511"),
    ({"kernels": {"per_stage": [[3], 5]}}, "kernels.per_stage[1] is 5, expected a list of choices as in the other"),
    ({"kernels": {"per_stage": [[3]] * 3}}, "kernels.per_stage has 3 lists, but `stages` is 2; give one list of"),
    ({"kernels": {"whole": [[3, 5, 7]]}}, "kernels.whole[0] is [3, 5, 7]: 3 entries, but `stages` is 2"),
    ({"kernels": {"whole": [3, 5, 3]}}, "kernels.whole[2] repeats the choice 3; give each choice once"),
    ({"kernels": {"whole": [3, [3, 3]]}}, "kernels.whole[1] repeats the choice 3"),
    ({"kernels": {"per_stage": [3, 5, 5]}}, "kernels.per_stage[2] repeats the choice 5"),
    ({"kernels": {"whole": ["large"]}}, "kernels.whole[0] is 'large', expected an odd number from 1 to 511"),
    ({"kernels": {"whole": [999_999_999]}}, "kernels.whole[0] is 999999999, expected an odd number from 1 to 511"),
    ({"kernels": {"whole": [[[3], 3]]}}, "kernels.whole[0][0] is [3], expected an odd number"),
    ({"channels": {"whole": [[4, -8]]}}, "channels.whole[0][1] is -8, expected a whole number from 1 to 16384"),
    ({"channels": {"whole": [[4, 1.5]]}}, "channels.whole[0][1] is 1.5, expected a whole number from 1 to 16384"),
    ({"blocks": {"per_stage": [[1], [True]]}}, "blocks.per_stage[1][0] is True, expected a whole number from 1 to"),
    ({"reparam": {"whole": [4]}}, "reparam.whole[0] is 4, expected an odd number from 1 to 511, or none"),
    ({"reparam": {"whole": [None, "none"]}}, "reparam.whole[1] repeats the choice None"),
    ({"shortcut": {"whole": ["maybe"]}}, "shortcut.whole[0] is 'maybe', expected yes or no"),
    ({"shortcut": {"whole": [1]}}, "shortcut.whole[0] is 1, expected yes or no"),
    ({"dw_ratio": 1.5}, "dw_ratio is 1.5, expected a valid list"),
    ({"dw_ratio": []}, "dw_ratio is an empty list"),
    ({"ffn_ratio": [0]}, "ffn_ratio[0] is 0, expected a number above 0, at most 32"),
    ({"ffn_ratio": [4, float("nan")]}, "ffn_ratio[1] is nan, expected a number above 0"),
    ({"ffn_ratio": [4, 4.0]}, "ffn_ratio[1] repeats the choice 4"),
    ({"constraints": "params<=2M"}, "constraints is 'params<=2M', expected a valid list"),
    ({"constraints": ["params<2M"]}, "constraints[0]: constraint 'params<2M': expected NAME<=VALUE"),
    ({"constraints": ["latency<=5ms"]}, "constraints[0]: constraint 'latency<=5ms': a space can bound params and fl"),
    ({"constraints": ["params<=2Q"]}, "constraints[0]: constraint 'params<=2Q': unit 'Q'"),
    ({"constraints": ["kernels growing"]}, "constraints[0]: constraint 'kernels growing': expected 'params<=NUMBER'"),
    ({"constraints": ["depth uniform"]}, "constraints[0]: constraint 'depth uniform': expected"),
    ({"constraints": ["kernels uniform"] * 2}, "constraints[1]: 'kernels uniform' is given twice"),
    ({"reference_points": ["toy-bigg"]}, "reference_points[0] is 'toy-bigg', not a published toy; did you mean 'toy-b"),
    ({"reference_points": [7]}, "reference_points[0] is 7, expected the name of a published architecture or a mapp"),
    ({"reference_points": [{"kernel": 3}]}, "reference_points[0]: unknown key 'kernel'; known: name, family, blocks"),
    ({"reference_points": [{"blocks": 1}]}, "reference_points[0]: key 'channels' is missing, and the space does not"),
    ({"reference_points": [REFERENCE | {"kernels": [3, 4]}]}, "reference_points[0].kernels[1] is 4, expected an odd"),
    (
        {"reference_points": [REFERENCE | {"kernels": [3]}]},
        "reference_points[0].kernels is [3]: 1 entries, but `stages",
    ),
    ({"reference_points": [REFERENCE | {"name": 3}]}, "reference_points[0].name is 3, expected a word"),
    ({"reference_points": [REFERENCE | {"ffn_ratio": "x"}]}, "reference_points[0]: architecture: ffn_ratio is 'x'"),
    (
        {"reference_points": [REFERENCE | {"stem_stride": 4}]},
        "reference_points[0]: stem_stride is 4, but the space has",
    ),
    ({"reference_points": [REFERENCE, REFERENCE]}, "reference_points[1] reference-2 is the same architecture as"),
    (
        {"reference_points": [REFERENCE], "constraints": ["params<=10"]},
        "reference_points[0] reference-1 breaks the constraint params<=10 (it has 271)",
    ),
    (
        {"reference_points": [REFERENCE | {"name": "wide"}], "constraints": ["channels uniform"]},
        "reference_points[0] wide breaks the constraint channels uniform",
    ),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words[:50] for _, words in WRONG])
def test_a_wrong_key_is_named_with_its_value(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    text = complaint(make(**changes), tmp_path)
    assert text.startswith(words)


# Ten lines that stand for ten thousand million values.
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 11))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a mapping with the keys name, family"),
        ("- 1\n", "expected a mapping"),
        ("just words", "expected a mapping"),
        ("name: a\nkernels: [3, 5\nfamily: toy\n", "line 3: not valid YAML: expected ',' or ']'"),
        ("name: a\n\tfamily: toy\n", "line 2: not valid YAML: found character '\\t'"),
        ("name: a\nfamily: toy\nname: b\n", "line 3: not valid YAML: key 'name' is given twice"),
        ("a: &x [*x]\n", "more than 20,000 values once its aliases are written out"),
        (BOMB, "more than 20,000 values once its aliases are written out"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "line 2: not valid YAML: could not determine a constructor for the tag"),
        ("1: 2\n", "line 1: not valid YAML: key 1 is not a word"),
        ("? [1]\n: 2\n", "line 1: not valid YAML: key [1] is not a word"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1: not valid YAML: could not determine a constructor"),
        ("--- \na: 1\n---\nb: 2\n", "line 3: not valid YAML: but found another document"),
        ("a: 2001-99-99\n", "a value cannot be read: month must be in 1..12"),
        ("a: " + "9" * 5000 + "\n", "a value cannot be read: Exceeds the limit"),
        ("[" * 20_000, "not valid YAML: nested too deeply"),
        ("a: " + "x" * 70_000, "larger than 64 KiB, which no search space needs"),
        ("a: \0\n", "not valid YAML: unacceptable character"),
    ],
)
def test_what_is_not_yaml_is_named_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    assert complaint(text, tmp_path).startswith(words)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_bytes(b"name: \xff\xfe")
    with pytest.raises(UserError, match=r"space\.yaml: not a text file: byte 6 is not UTF-8"):
        SearchSpace.load(file)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read: No such file"):
        SearchSpace.load(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="is a folder, expected a YAML file"):
        SearchSpace.load(tmp_path)
    with pytest.raises(
        UserError, match=r"'replknet-tinny' is neither shipped nor a file; did you mean 'replknet-tiny'"
    ):
        SearchSpace.load("replknet-tinny")
    with pytest.raises(
        UserError, match=r"search space '' is neither shipped nor a file; shipped: replknet, replknet-mi"
    ):
        SearchSpace.load("")


def test_the_published_name_may_have_another_stem(tmp_path: Path) -> None:
    words = "reference_points[0] toy-big: stem_stride is 1, but the space has 2"
    assert complaint(make(reference_points=["toy-big"], stem_stride=2), tmp_path).startswith(words)


def test_defaults_are_those_of_the_published_family(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "family: toy\nimage_size: 64\nblocks: {whole: [1]}\nchannels: {whole: [8]}\nkernels: {per_stage: [3, 7]}\n"
    )
    space = SearchSpace.load(str(file))
    fields = space.to_dict()
    assert (space.name, space.stages, space.stem_stride, space.classes) == ("mine", 4, 4, 1000)
    assert fields["reparam"] == {"whole": [None]}
    assert fields["shortcut"] == {"whole": [True]}
    assert (fields["dw_ratio"], fields["ffn_ratio"], fields["constraints"]) == ([1.0], [4.0], [])
    assert [v.name for v in space.variables] == ["kernels_1", "kernels_2", "kernels_3", "kernels_4"]


def test_words_of_yaml_for_shortcut_and_re_param(tmp_path: Path) -> None:
    file = tmp_path / "words.yaml"
    text = yaml.safe_dump(make(reparam=..., shortcut=...))
    file.write_text(text + "shortcut: {whole: [yes, no]}\nreparam: {whole: [none, ~]}\n")
    with pytest.raises(UserError, match="repeats the choice None"):
        SearchSpace.load(file)
    file.write_text(text + "shortcut: {whole: [[yes, no], no]}\nreparam: {whole: [5, none, [3, none]]}\n")
    choices = {v.name: v.choices for v in SearchSpace.load(file).variables}
    assert choices["shortcut"] == (False, "yes-no")
    assert choices["reparam"] == (None, "3-none", 5)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["per_stage", "whole", "name", "x"]), inner)
    ),
    max_leaves=6,
)


def outcome(call: Callable[[], Any]) -> Any:
    """The result, or what the user is told; anything else that is raised fails the test."""
    try:
        return call()
    except UserError as error:
        return str(error)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([*make(), "constraints", "reference_points", "stem"]), values)
def test_nothing_but_a_user_error_comes_of_any_value(key: str, value: Any) -> None:
    space = outcome(lambda: SearchSpace.from_dict(make(**{key: value}), "somewhere"))
    if isinstance(space, str):
        assert space.startswith("somewhere: ")
        assert "\n" not in space
    else:
        assert SearchSpace.from_dict(space.to_dict()) == space


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="ab:-[]{}&*!?,#|>'\"%@` \n\t0.", max_size=40))
def test_nothing_but_a_user_error_comes_of_any_text(text: str) -> None:
    told = outcome(lambda: [strict_yaml.parse(text, "file")])
    assert isinstance(told, list) or (told.startswith("file: ") and "\n" not in told)
