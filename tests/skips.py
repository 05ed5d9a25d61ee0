"""What tests were skipped, and the command that installs what they miss: ``python -m tests.skips FILE``.

``make test`` is several runs of pytest, and what the first of them has skipped stands thousands of lines above the
end. With ``GCPOOL_NOTE_SKIPS=FILE`` each run adds its skips to that file (``tests/conftest.py``), and ``make test``
ends with what this program says about it.
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

# What the reason of a skip says, and the server that it misses.
SERVERS = {
    r'PostgreSQL is not installed': 'PostgreSQL',
    r'MariaDB is not installed': 'MariaDB',
    r'Redis is not installed': 'Redis',
}
# What each system that is known calls their packages, by the program that installs them.
PACKAGES: dict[str, dict[str, str]] = {
    'apt-get install --yes': {'PostgreSQL': 'postgresql', 'MariaDB': 'mariadb-server', 'Redis': 'redis-server'},
    'dnf install --assumeyes': {'PostgreSQL': 'postgresql-server', 'MariaDB': 'mariadb-server', 'Redis': 'valkey'},
    'brew install': {'PostgreSQL': 'postgresql@17', 'MariaDB': 'mariadb', 'Redis': 'redis'},
}
# Programs that an ordinary user runs by sudo.
PRIVILEGED = ('apt-get', 'dnf')
# What the reason says where a package for Python is missing, which the dependency group has.
NO_MODULE = re.compile(r'could not import|not installed')
INSTALL_MODULES = 'python -m pip install --group test'

Skips = Mapping[str, str]


def note(file: Path, skipped: Skips) -> None:
    """Add skips to those of other runs.

    :param file: made if it is not there
    :param skipped: a reason for each id of a test
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # One write, because the processes of a run may all have something to note.
    with file.open('a', encoding='utf-8') as stream:
        stream.write(''.join(f'{json.dumps(pair)}\n' for pair in skipped.items()))


def noted(file: Path) -> dict[str, str]:
    """Give what runs have noted; nothing if the file is not there."""
    if not file.exists():
        return {}
    return dict(json.loads(line) for line in file.read_text(encoding='utf-8').splitlines())


def short(reason: str) -> str:
    """Give the first part of a reason, without what else it explains."""
    return reason.removeprefix('Skipped: ').split(': neither')[0].split(': No module')[0]


def command_for(reasons: Iterable[str], which: Callable[[str], str | None], is_root: bool) -> str | None:
    """Give the one command after which the tests are not skipped.

    :param reasons: why tests were skipped
    :param which: the path of a program, None if it is not installed
    :param is_root: whether the command needs no sudo
    :return: None if no command helps
    """
    reasons = list(reasons)
    servers = [server for pattern, server in SERVERS.items() if any(re.search(pattern, reason) for reason in reasons)]
    others = [reason for reason in reasons if not any(re.search(pattern, reason) for pattern in SERVERS)]
    commands: list[str] = []
    if servers:
        installer = next((command for command in PACKAGES if which(command.split()[0]) is not None), None)
        if installer is None:
            commands.append(f'install {", ".join(servers)} (their programs have to be on PATH)')
        else:
            sudo = 'sudo ' if installer.split()[0] in PRIVILEGED and not is_root else ''
            commands.append(f'{sudo}{installer} {" ".join(PACKAGES[installer][server] for server in servers)}')
    if any(NO_MODULE.search(reason) for reason in others):
        commands.append(INSTALL_MODULES)
    return ' && '.join(commands) or None


def command_here(reasons: Iterable[str]) -> str | None:
    """Give the command for this machine."""
    return command_for(reasons, shutil.which, getattr(os, 'geteuid', lambda: 1)() == 0)


def told(skipped: Skips) -> list[str]:
    """Give what is to be told about skips, the command last: nothing is skipped, or how many tests, and why."""
    if not skipped:
        return ['No test was skipped.']
    counts = Counter(map(short, skipped.values()))
    lines = [f'Skipped: {len(skipped)}']
    lines += [f'{count:7}  {reason}' for reason, count in counts.most_common()]
    command = command_here(skipped.values())
    if command is not None:
        lines.append(f'To run what is missing: {command}')
    return lines


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog='python -m tests.skips', description='Tells what tests were skipped.')
    parser.add_argument('file', type=Path)
    print(*told(noted(parser.parse_args().file)), sep='\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
