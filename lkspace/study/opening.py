"""Which study a place means, and how a new one comes to be: whole or not at all."""

import json
import os
import uuid
import warnings
from pathlib import Path

import optuna

from lkspace.errors import UserError
from lkspace.study import attributes, storage
from lkspace.study.record import FORMAT, Plan

_PART = ".study.db.part"
_BEGUN = ".study.begun"  # which study is being made for this folder in a database


def find_study(place: str | Path) -> tuple[optuna.storages.RDBStorage, str]:
    """The storage that a user's name for a run leads to, and the name of the study in it.

    Raises UserError, naming the place, if there is none of ours or several, or it is damaged.
    """
    found, name = storage.find(place)
    database = storage.connect(found)
    with storage.reading(found):
        studies = {s.study_name: s.user_attrs for s in database.get_all_studies()}
        formats = {n: int(a[attributes.FORMAT]) for n, a in studies.items() if attributes.FORMAT in a}
    ours = sorted(formats)
    known, where = ", ".join(ours) or "none", storage.shown(place)
    if name is None:
        if not ours:
            raise UserError(f"no study of lkspace at {where}")
        if len(ours) > 1:
            url = where if storage.is_url(str(place)) else repr(f"sqlite:///{found}")
            raise UserError(f"{len(ours)} studies at {where}: add '#NAME' to {url}, NAME one of {known}")
        name = ours[0]
    elif name not in ours:
        raise UserError(f"no study {name!r} at {where}; studies of lkspace there: {known}")
    if (written := formats[name]) > FORMAT:
        raise UserError(
            f"the study {name!r} at {where} has format {written}, this lkspace reads up to {FORMAT}; update lkspace"
        )
    return database, name


def run_folder(place: str | Path, recorded: str | None) -> Path | None:
    """The run's folder: where the user found it, which may have moved, or where it was made."""
    if not storage.is_url(str(place)):
        path = Path(os.path.expanduser(place)).resolve()
        if path.is_dir():
            return path
        if path.name == storage.FILE:
            return path.parent
    return Path(recorded) if recorded and os.path.isdir(recorded) else None


def make_file(folder: Path, plan: Plan) -> None:
    """An empty study in `folder`/study.db, made under another name first. Raises UserError if there is that file."""
    target, part = folder / storage.FILE, folder / _PART
    if target.exists():
        raise _exists(plan, folder)
    part.unlink(missing_ok=True)
    database = storage.connect(part, create=True)
    with storage.writing(folder):
        _make(database, folder, plan)
    database.remove_session()
    database.engine.dispose()
    part.rename(target)


def make_in_database(folder: Path, plan: Plan, url: str) -> None:
    """An empty study in a database, in place of one whose making was cut short; the folder then says where it is."""
    database = storage.connect(storage.split_url(url)[0], create=True)
    pointer, begun, name = folder / storage.POINTER, folder / _BEGUN, storage.without_password(url, plan.name)
    with storage.reading(url):
        studies = database.get_all_studies()
    for study in studies:
        if study.study_name != plan.name:
            continue
        # What a driver left that was killed in here: with the mark that lies in this folder, or with nothing at all.
        known, _, called = begun.read_text(encoding="utf-8").partition(" ") if begun.exists() else ("", "", "")
        ours = study.user_attrs.get(attributes.BEGUN) == known or (not study.user_attrs and called == name)
        if pointer.exists() or not ours or database.get_n_trials(study._study_id):
            raise _exists(plan, url)
        database.delete_study(study._study_id)
    mark = uuid.uuid4().hex
    begun.write_text(f"{mark} {name}", encoding="utf-8")
    with storage.writing(folder):
        _make(database, folder, plan, mark)
    pointer.write_text(f"{name}\n", encoding="utf-8")
    begun.unlink(missing_ok=True)


def _make(database: optuna.storages.RDBStorage, folder: Path, plan: Plan, mark: str = "") -> None:
    with storage.quiet():
        study = optuna.create_study(
            storage=database, study_name=plan.name, directions=[o.direction for o in plan.objectives]
        )
    if mark:
        study.set_user_attr(attributes.BEGUN, mark)
    study.set_user_attr(attributes.FOLDER, str(folder))
    with warnings.catch_warnings():  # names for Optuna's tools alone, through a call it marks as experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([o.name for o in plan.objectives])
    # The command may hold the storage's URL; no password goes into the record.
    safe = json.loads(storage.masked(json.dumps(attributes.jsonable(plan.to_dict()))))
    study.set_user_attr(attributes.PLAN, safe)
    study.set_user_attr(attributes.FORMAT, FORMAT)


def _exists(plan: Plan, place: str | Path) -> UserError:
    return UserError(
        f"there is a study {plan.name!r} at {storage.shown(place)} already;"
        " name another with --storage URL#NAME or --run"
    )
