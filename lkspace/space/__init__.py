"""What may be built: `Architecture` is a point, `SearchSpace` all points."""

from lkspace.space.architecture import Architecture
from lkspace.space.describe import check, describe
from lkspace.space.locate import shipped
from lkspace.space.search_space import SearchSpace
from lkspace.space.variable import Variable

__all__ = ["Architecture", "SearchSpace", "Variable", "check", "describe", "shipped"]
