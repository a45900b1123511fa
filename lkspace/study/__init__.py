"""The record of a search in an Optuna storage: trials, Pareto front, hypervolume. Reading needs neither Ray nor torch.

`study` is what everybody uses; `record` has its data types, `attributes` how they are written into Optuna's, `storage`
and `opening` which database a place means, `proposals` what a sampler is asked, `pareto` the geometry.
"""

from lkspace.study.proposals import Asked
from lkspace.study.record import Objective, Outcome, Plan, Trial
from lkspace.study.study import Study

__all__ = ["Asked", "Objective", "Outcome", "Plan", "Study", "Trial"]
