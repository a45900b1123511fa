"""The commands: parse, call one public function, print. Nothing is computed here.

A user's mistake is one line on stderr and exit code 2, a run that failed one line and exit code 1, a bug a
traceback. Heavy imports stand inside the commands, so that `lkspace --help` is immediate.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

import lkspace
from lkspace.errors import RunError, UserError

if TYPE_CHECKING:
    from lkspace.study import Study

app = typer.Typer(
    help="Search large-kernel convolutional networks for accuracy, FLOPs and latency on your hardware.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
space_app = typer.Typer(help="Look at search spaces.", no_args_is_help=True)
app.add_typer(space_app, name="space")

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, its name under runs/, or a storage URL.")]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to run on: HOST:PORT, or auto on one of its machines.", show_default="this machine"),
]
DEFAULT_SPACE = "replknet-tiny"
_INTERRUPTED = 130  # exit code, as shells count: 128 + SIGINT


@app.command()
def search(
    space: Annotated[str, typer.Option(help="A shipped space's name or a YAML file.")] = DEFAULT_SPACE,
    data: Annotated[
        str, typer.Option(help="digits | folder:PATH | cifar10:PATH | cifar100:PATH | npz:PATH")
    ] = "digits",
    budget: Annotated[int, typer.Option(min=1, help="How many candidates are tried in all.")] = 20,
    objectives: Annotated[
        str, typer.Option(help="Scores to trade off, comma-separated: accuracy, flops, latency, params.")
    ] = "accuracy,flops,latency",
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="A bound such as 'latency<=5ms' or 'params<=2M'; may be repeated."),
    ] = None,
    sampler: Annotated[str, typer.Option(help="pareto | nsga2 | tpe | gp | random")] = "pareto",
    early_stopping: Annotated[
        Literal["front", "halving", "none"],
        typer.Option(help="End trainings that will not reach the front; halving: that fall behind others as costly."),
    ] = "front",
    seed: Annotated[int, typer.Option(min=0, help="Decides initial weights and the order of candidates.")] = 0,
    run: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/SPACE")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="SQLite or PostgreSQL URL of the record; URL#NAME names the study in it.",
            show_default="SQLite in the run's folder",
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time.", show_default="one a core, one a GPU")
    ] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(min=1, help="Threads of one trial.", show_default="1")] = None,
    gpus_per_trial: Annotated[float, typer.Option(min=0.0, help="GPUs of one trial; a fraction shares one.")] = 0.0,
    address: Address = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Length of the proxy training.", show_default="4")] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Batch of the proxy training.", show_default="32")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.0, help="Peak learning rate of the proxy training.", show_default="0.01")
    ] = None,
    latency_batch: Annotated[int, typer.Option(min=1, help="Images a timed pass holds.")] = 1,
    latency_dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Precision of the timed pass.")
    ] = "float32",
    latency_threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the timed pass.", show_default="1")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then train the front longer: see `lkspace verify`.")
    ] = False,
) -> None:
    """Search a space; the same command continues an interrupted run, a larger --budget extends it."""
    from lkspace import search as searching
    from lkspace.quantity import Bound
    from lkspace.report import front_table, write_page
    from lkspace.space.search_space import SearchSpace
    from lkspace.study.storage import masked_word, split_url

    _reject_unusable_numbers(rate)
    names = [name.strip() for name in objectives.split(",")]
    if verify and "accuracy" not in (*names, *(Bound.parse(text).name for text in constraint or [])):
        raise UserError(
            "--verify checks accuracies, and this search has none: add accuracy to --objectives, or drop it"
        )
    console = Console(stderr=True)
    folder = run if run is not None else Path("runs") / Path(space).stem
    try:
        study = searching.run(
            SearchSpace.load(space),
            budget=budget,
            objectives=names,
            constraints=constraint or [],
            data=data,
            overrides=_given(
                epochs=epochs,
                batch=batch,
                rate=rate,
                latency_batch=latency_batch,
                latency_dtype=latency_dtype,
                latency_threads=latency_threads,
                threads=cpus_per_trial,
            ),
            sampler=sampler,
            early_stopping=early_stopping,
            seed=seed,
            folder=folder,
            storage=storage,
            concurrency=concurrency,
            gpus_per_trial=gpus_per_trial,
            address=address,
            command=shlex.join(["lkspace", *map(masked_word, sys.argv[1:])]),
            console=console,
        )
    except searching.Interrupted as interrupted:
        if interrupted.study is not None:
            write_page(interrupted.study, folder / "front.html")
        raise
    page = write_page(study, folder / "front.html")
    if verify:
        study = searching.verify(
            folder if storage is None else f"{split_url(storage)[0]}#{study.name}",
            concurrency=concurrency,
            gpus_per_trial=gpus_per_trial or None,
            address=address,
            console=console,
        )
        write_page(study, page)
    Console().print(front_table(study))
    after = f"\nThe front to look at: {page}\nOne candidate: lkspace show {shlex.quote(str(folder))} NUMBER"
    console.print(after, markup=False, highlight=False, soft_wrap=True)


@app.command()
def front(
    run: Run,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values of the front.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="JSON of the front, with the architectures.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="With --csv: all trials, not the front alone.")] = False,
    page: Annotated[Path | None, typer.Option(help="Write the page to look at to this file.")] = None,
) -> None:
    """Print the Pareto front of a run, finished or not."""
    from lkspace import report

    if csv and json_:
        raise UserError("--csv and --json exclude each other: give one of them")
    if everything and not csv:
        raise UserError("--all goes with --csv: give both, or leave it away")
    study = _study(run)
    if page is not None:
        report.write_page(study, page)
    if csv:
        print(report.front_csv(study, everything), end="")
    elif json_:
        print(report.front_json(study))
    else:
        Console().print(report.front_table(study))


@app.command()
def show(run: Run, trial: Annotated[int, typer.Argument(metavar="TRIAL", help="The candidate's number.")]) -> None:
    """Print one candidate and what its numbers are made of."""
    from lkspace.report import candidate_text

    print(candidate_text(_study(run), trial))


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN|NAME", help="A run, or a reference point such as replknet-31b.")],
    trial: Annotated[int | None, typer.Argument(metavar="[TRIAL]", help="The candidate's number in the run.")] = None,
    to: Annotated[str, typer.Option(help="json | replknet")] = "json",
    form: Annotated[
        Literal["train", "deploy"], typer.Option(help="With batch norms and branches, or merged.")
    ] = "deploy",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="export/RUN-TRIAL, or export/NAME")
    ] = None,
) -> None:
    """Take one network away, in a form that another library loads."""
    from lkspace import export as exporting

    if trial is None:
        if _is_run(_place(run)):
            raise UserError(f"{run} is a run: which candidate of it? As in `lkspace export {run} 17`")
        print(exporting.export_reference(run, to, form=form, folder=out))
        if exporting.takes_weights(to):
            print(f"{run} is an architecture without trained weights: these are random", file=sys.stderr)
        return
    study = _study(run)
    print(exporting.export_trial(study, trial, to, form=form, folder=out))
    if exporting.takes_weights(to) and exporting.trial_weights(study, trial) is None:
        print(f"trial {trial} left no weights: these are random", file=sys.stderr)


@app.command()
def verify(
    run: Run,
    top: Annotated[int, typer.Option(min=1, help="Front members to train longer, and as many others.")] = 8,
    epochs: Annotated[str, typer.Option(help="Of a longer training: 20, or 5x for five times the run's.")] = "5x",
    seeds: Annotated[int, typer.Option(min=1, help="Longer trainings of each.")] = 3,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Trainings at a time.", show_default="one a core, one a GPU")
    ] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0.0, help="GPUs of one training.", show_default="1 if the run was made on one")
    ] = None,
    address: Address = None,
) -> None:
    """Train the front and others longer, to see how far the run's accuracies can be trusted; continues if cut off."""
    from lkspace import report
    from lkspace import search as searching

    study = searching.verify(
        _place(run),
        top=top,
        epochs=epochs,
        seeds=seeds,
        concurrency=concurrency,
        gpus_per_trial=gpus_per_trial,
        address=address,
        console=Console(stderr=True),
    )
    if study.folder is not None:
        report.write_page(study, study.folder / "front.html")
    Console().print(report.trust_table(study))


@app.command()
def profile(
    space: Annotated[str, typer.Option(help="A shipped space's name or a YAML file.")] = DEFAULT_SPACE,
    device: Annotated[str, typer.Option(help="cpu or cuda[:N]")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images a timed pass holds.")] = 1,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Precision of the timed pass.")
    ] = "float32",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the timed pass.")] = 1,
    check: Annotated[int, typer.Option(min=0, help="Random networks to measure whole, for comparison.")] = 0,
    again: Annotated[bool, typer.Option("--again", help="Time what is known already, too.")] = False,
) -> None:
    """Time every part of a space once, so that a search knows the latency of any network before it is built."""
    from lkspace import search as searching
    from lkspace.space.search_space import SearchSpace

    setting = {"device": device, "latency_batch": batch, "latency_dtype": dtype, "latency_threads": threads}
    console = Console(stderr=True)
    print(searching.profile(SearchSpace.load(space), setting, check=check, again=again, console=console).text)


@app.command()
def doctor() -> None:
    """Say what works here: versions, devices, the operator, whether latency can be measured."""
    from lkspace.doctor import report_text

    print(report_text())


@space_app.command("list")
def list_spaces() -> None:
    """Print the names of the spaces that come with lkspace."""
    from lkspace.space import shipped

    print("\n".join(shipped()))


@space_app.command()
def describe(space: Annotated[str, typer.Argument(help="Name or YAML file.")] = DEFAULT_SPACE) -> None:
    """Print the choices, the size, the constraints and the reference points of a space."""
    from lkspace.space import describe as text_of
    from lkspace.space.search_space import SearchSpace

    print(text_of(SearchSpace.load(space)))


@space_app.command()
def sample(
    space: Annotated[str, typer.Argument(help="Name or YAML file.")] = DEFAULT_SPACE,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many architectures.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random generator.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print architectures drawn uniformly from a space."""
    import numpy as np

    from lkspace.space.search_space import SearchSpace

    drawn, rng = SearchSpace.load(space), np.random.default_rng(seed)
    for _ in range(count):
        architecture = drawn.sample(rng)
        print(architecture.to_json() if json_ else f"{architecture.id}  {architecture}")


@space_app.command()
def check(space: Annotated[str, typer.Argument(help="Name or YAML file.")]) -> None:
    """Read a space as a search would, and print what is worth knowing before one."""
    from lkspace.space import check as remarks_on

    print("\n".join(remarks_on(space)))


def _reject_unusable_numbers(rate: float | None) -> None:
    if rate is not None and not 0 < rate < float("inf"):
        raise UserError(f"--rate {rate}: expected a positive learning rate such as 0.01")


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _study(run: str) -> "Study":
    from lkspace.study import Study

    return Study.open(_place(run))


def _place(run: str) -> str:
    """A folder or URL as given; a bare name is looked for under runs/ as well."""
    named = Path("runs") / run
    return str(named) if not _is_run(run) and os.path.isdir(named) else run


def _is_run(place: str) -> bool:
    from lkspace.study.storage import FILE, POINTER, is_url

    files = (place, *(os.path.join(place, file) for file in (FILE, POINTER)))
    return is_url(place) or any(map(os.path.isfile, files))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lkspace {lkspace.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 good, 1 the run failed, 2 a wrong call, 130 interrupted."""
    try:
        code = int(app(args=arguments, prog_name="lkspace", standalone_mode=False) or 0)
        if code == _INTERRUPTED:  # typer makes an exit of it
            raise KeyboardInterrupt
        sys.stdout.flush()  # a reader that is gone is met here at the latest
        return code
    except (UserError, typer.TyperException) as error:
        return _failure(error, 2)
    except RunError as error:
        return _failure(error, 1)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; the same command continues", file=sys.stderr)
        return _INTERRUPTED
    except PermissionError as error:  # Path.exists and its sisters raise where a folder may not be entered
        return _failure(UserError(f"{error.filename or 'a file'}: {error.strerror}; name another place"), 2)
    except BrokenPipeError:  # `lkspace front RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _failure(error: Exception, code: int) -> int:
    message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    if message.startswith("Usage:"):  # called with nothing: the help is the answer
        print(message, file=sys.stderr)
        return code
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
