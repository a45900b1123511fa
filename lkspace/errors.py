"""The two ways a command can end badly without being a bug; anything else that is raised is a bug."""


class UserError(ValueError):
    """A mistake of the caller's, told in one line: the place, the value, what would be right (exit code 2)."""


class RunError(RuntimeError):
    """The call was right but the run could not finish: disk full, storage gone, every trial failed (exit code 1)."""
