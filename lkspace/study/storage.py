"""Where a study lies: the SQLite file in a run's folder, or any database that a URL names, opened for Optuna.

Every way in which a place can be wrong ends here, in one line that says what was expected.
"""

import contextlib
import errno
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import optuna
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from lkspace.errors import RunError, UserError

FILE = "study.db"
POINTER = "study.url"  # in the folder of a run whose study lies elsewhere; never holds a password
WAIT = 60.0  # seconds that a process waits for another one's commit


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna's information lines off in here, as they were afterwards."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def split_url(text: str) -> tuple[str, str | None]:
    """A storage URL and, after a `#`, the name of the study in it."""
    url, _, name = text.partition("#")
    return url, name or None


def pointed(folder: Path) -> tuple[str, str | None]:
    """The URL and the study's name that a run's folder keeps in POINTER."""
    return split_url((folder / POINTER).read_text(encoding="utf-8").strip())


def is_url(place: str) -> bool:
    """Whether this names a database rather than a folder."""
    return "://" in place


def without_password(url: str, name: str) -> str:
    """URL#NAME fit for a file: a database server takes the password from its own places (PGPASSWORD, ~/.pgpass)."""
    address = split_url(url)[0]
    bare = make_url(address)
    if bare.drivername == "sqlite":  # a path means the same from every folder
        bare = bare.set(database=str(_sqlite_path(address)))
    bare = bare.difference_update_query(["password"])._replace(password=None)
    return f"{bare.render_as_string(hide_password=False)}#{name}"


def masked(text: str) -> str:
    """Text with the password of every URL in it as ***."""
    text = re.sub(r"(://[^/\s:\"]*):[^\s@\"]*@", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&\s\"'#]*", r"\1***", text)


def masked_word(text: str) -> str:
    """One word of a command, or a place, with its password as ***, whatever characters that is made of."""
    text = re.sub(r"(://[^/:]*):[^@]*@", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&#]*", r"\1***", text)


def shown(place: str | Path) -> str:
    """A place in quotes, fit for a message."""
    return repr(masked_word(str(place)))


def now() -> datetime:
    """Local time, as Optuna stores it."""
    return datetime.now()


def find(place: str | Path) -> tuple[str | Path, str | None]:
    """What a user calls a run -> the SQLite file or the URL, and the study's name if it says one.

    place: a run's folder, its `study.db`, or URL[#NAME]. Raises UserError if nothing is there.
    """
    if is_url(str(place)):
        return split_url(str(place))
    path = Path(os.path.expanduser(place))
    if not os.path.exists(path):  # False where Path.exists raises: a name too long, a folder that may not be entered
        raise UserError(f"no run at {str(path)!r}: no such folder{_beside(path.parent)}")
    if os.path.isfile(path):
        return path.resolve(), None
    if not os.access(path, os.X_OK):
        raise UserError(f"no run at {str(path)!r} that you may read: permission denied")
    if os.path.isfile(path / FILE):
        return (path / FILE).resolve(), None
    if os.path.isfile(path / POINTER):
        return pointed(path)
    raise UserError(f"no run at {str(path)!r}: the folder has no {FILE}{_beside(path)}")


def connect(place: str | Path, *, create: bool = False) -> optuna.storages.RDBStorage:
    """The storage at an SQLite file or a database URL; its tables are made only if `create`.

    Raises UserError if the place is not a database that Optuna reads, RunError if a server does not answer or a new
    file cannot be written.
    """
    url = str(place)
    if is_url(url) and not url.startswith("sqlite:"):
        return _server(url, create)
    path = _sqlite_path(url) if is_url(url) else Path(place)
    there = path.is_file()
    if not create and not there:
        raise UserError(f"no study at {str(path)!r}: no such file")
    mode = "rwc" if create else "rw" if _writable(path) else "ro"

    def open_file() -> sqlite3.Connection:
        # Not through SQLAlchemy's URL: it would need escapes for '?', '#', '%' and braces in the path.
        file = f"file:{quote(str(path))}?mode={mode}"
        return sqlite3.connect(file, uri=True, timeout=WAIT, check_same_thread=False)

    options = {"creator": open_file, "poolclass": _pool()}
    try:
        return _open("sqlite://", options, create)
    except (SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError, AssertionError) as error:
        if not there:
            raise RunError(
                f"{str(path)!r} cannot be written ({_root(error)}); name a folder that you may write"
            ) from None
        raise UserError(f"{str(path)!r} is not a study that can be read ({_root(error)})") from None


def lost(error: Exception) -> str:
    """What to say of an error of the storage while a study is written."""
    why = " ".join(str(error.__cause__ or error).split("\n")[0].split())
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in why
    mend = "free space" if full else "see that its storage answers and may be written"
    return f"the study cannot be written ({why}); {mend}, then repeat the call"


@contextlib.contextmanager
def writing(place: object) -> Iterator[None]:
    """RunError that begins with `place` if what is written inside cannot be kept."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        raise RunError(f"{place}: {lost(error)}") from error


@contextlib.contextmanager
def reading(place: str | Path) -> Iterator[None]:
    """UserError that names `place` if what is read inside is damaged, RunError if its storage does not answer."""
    try:
        yield
    except UserError:
        raise
    # Damage that the database does not see is text that is no JSON, a row that is missing, a state that is none.
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError, LookupError, ValueError) as error:
        why = _root(error)
        if isinstance(error.__cause__ or error, OperationalError):
            mend = "see that its storage answers, then repeat the call"
            raise RunError(f"{shown(place)}: the study cannot be read ({why}); {mend}") from error
        raise UserError(f"{shown(place)} is not a study that can be read ({why})") from error


def check_url(text: str, folder: Path | None = None) -> None:
    """UserError if a storage URL can be nothing of the kind, or its file lies in no folder; does not connect.

    folder: the run's, absolute, if it will be made before the file.
    """
    url, _ = split_url(text)
    address = _server_url(url)
    if address.get_backend_name() != "sqlite" or "uri" in address.query:  # then the path is in SQLite's own form
        return
    path = _sqlite_path(url)
    if os.path.isdir(path):
        raise UserError(f"storage {shown(text)}: {str(path)!r} is a folder; name a file in it")
    made = folder is not None and path.parent in (folder, *folder.parents)
    if not made and not os.path.isdir(path.parent):
        raise UserError(f"storage {shown(text)}: no folder {str(path.parent)!r}; make it, or name another file")


def _server_url(text: str) -> URL:
    """The URL with the driver we install; UserError if it is none or its driver is not there."""
    try:
        url = make_url(text)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect()
    except (ArgumentError, SQLAlchemyError, ValueError):  # ValueError: a port that is no number
        raise UserError(
            f"storage {shown(text)} is not a database URL such as 'sqlite:///runs.db' or 'postgresql://user@host/name'"
        ) from None
    except ImportError:
        raise UserError(_no_driver(text)) from None
    return url


def _server(text: str, create: bool) -> optuna.storages.RDBStorage:
    url = _server_url(text)
    try:
        return _open(url.render_as_string(hide_password=False), {"pool_pre_ping": True}, create)
    except ImportError:
        raise UserError(_no_driver(text)) from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise RunError(f"the storage {shown(text)} does not answer ({_root(error)})") from None


def _no_driver(text: str) -> str:
    return f"storage {shown(text)} needs a database driver; for PostgreSQL: pip install 'psycopg[binary]'"


def _open(url: str, options: dict[str, object], create: bool) -> optuna.storages.RDBStorage:
    literal = url.replace("{", "{{").replace("}", "}}")  # Optuna takes braces for a place to fill in
    with quiet():
        try:
            return optuna.storages.RDBStorage(literal, engine_kwargs=options, skip_table_creation=not create)
        except RuntimeError as error:
            message = f"the storage was written by another version of Optuna than {optuna.__version__} ({_root(error)})"
            raise UserError(message) from None


def _pool() -> type:
    from sqlalchemy.pool import QueuePool

    return QueuePool


def _sqlite_path(url: str) -> Path:
    database = make_url(url).database
    if not database or database == ":memory:":
        raise UserError(f"storage {shown(url)} names no file; expected sqlite:///PATH")
    return Path(database).resolve()


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _root(error: BaseException) -> str:
    """The innermost message, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(getattr(error, "orig", error)) or type(error).__name__
    return " ".join(text.split())


def _beside(folder: Path) -> str:
    """'; runs there: ...' if the folder holds any."""
    try:
        runs = sorted(p.parent.name for name in (FILE, POINTER) for p in folder.glob(f"*/{name}"))
    except OSError:
        runs = []
    if not runs:
        return "; expected the folder of a run, as `lkspace search` makes it, or the URL of a storage"
    return f"; runs in {str(folder)!r}: {', '.join(runs[:8])}{' ...' if len(runs) > 8 else ''}"
