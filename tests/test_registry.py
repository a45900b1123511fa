import pytest

from lkspace import registry
from lkspace.errors import UserError


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (registry.families, {"replknet"}),
        (registry.scores, {"accuracy", "flops", "latency", "params"}),
        (registry.samplers, {"gp", "nsga2", "pareto", "random", "tpe"}),
        (registry.exporters, {"json", "replknet"}),
    ],
)
def test_what_the_program_offers_is_found_without_being_listed(
    entries: registry.Registry[object], expected: set[str]
) -> None:
    assert expected <= set(entries.names())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown sampler 'nsga3'; known: .*nsga2"):
        registry.samplers.get("nsga3")


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        registry.families.register(registry.families.names()[0])(object())
