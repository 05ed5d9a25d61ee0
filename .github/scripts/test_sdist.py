"""Tests a wheel as cibuildwheel does: as it is installed, by the tests of the sdist, with what that tests wheels with.

    test_sdist.py DIRECTORY WORKING_DIRECTORY [ARGUMENT...]

DIRECTORY holds one sdist and the wheel that was built from it. WORKING_DIRECTORY is made anew. The dependency groups,
the command and its environment are those of [tool.cibuildwheel] in the sdist; the further arguments are for pytest, and
pytest-xdist is there for them.
"""

import argparse
import importlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

toml: Any = importlib.import_module('tomllib' if sys.version_info >= (3, 11) else 'tomli')


def the_one(directory: Path, pattern: str) -> Path:
    """Find what there must be exactly one of."""
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f'{directory} holds {len(found)} of {pattern}, not one')
    return found[0].resolve()


def main() -> int:
    """Run the command line.

    :return: what the tests return
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('directory', type=Path)
    parser.add_argument('working_directory', type=Path)
    options, arguments = parser.parse_known_args()
    sdist, wheel = the_one(options.directory, '*.tar.gz'), the_one(options.directory, '*.whl')
    shutil.rmtree(options.working_directory, ignore_errors=True)
    work = options.working_directory.resolve()
    shutil.unpack_archive(sdist, work / 'sdist')
    pyproject = the_one(work / 'sdist', '*/pyproject.toml')
    project = pyproject.parent
    settings = toml.loads(pyproject.read_text(encoding='utf-8'))['tool']['cibuildwheel']

    environment = work / 'venv'
    subprocess.run([sys.executable, '-m', 'venv', environment], check=True)
    scripts = Path(sysconfig.get_path('scripts', 'venv', {'base': str(environment)}))
    groups = [argument for group in settings['test-groups'] for argument in ('--group', f'{pyproject}:{group}')]
    subprocess.run(
        [
            *(sys.executable, '-m', 'pip', '--disable-pip-version-check', '--python', str(environment)),
            *('install', '--quiet', *groups, 'pytest-xdist>=3.6', str(wheel)),
        ],
        check=True,
    )

    # Neither the project nor its sources are where Python looks for modules.
    elsewhere = work / 'elsewhere'
    elsewhere.mkdir()
    variables = {**os.environ, **settings['test-environment'], 'GCPOOL_EXPECT_BUILD': str(environment)}
    variables.pop('PYTHONPATH', None)
    variables['PATH'] = os.pathsep.join([str(scripts), os.environ['PATH']])
    program, *rest = shlex.split(settings['test-command'].replace('{project}', shlex.quote(project.as_posix())))
    found = shutil.which(program, path=str(scripts))
    if found is None:
        raise SystemExit(f'there is no {program} in {scripts}')
    print(f'+ {shlex.join([program, *rest, *arguments])}', flush=True)
    return subprocess.run([found, *rest, *arguments], cwd=elsewhere, env=variables, check=False).returncode


if __name__ == '__main__':
    sys.exit(main())
