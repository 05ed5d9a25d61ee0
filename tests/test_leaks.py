"""Nothing grows with what was done. Each script in ``leaks/`` says what it guards against, and is run by itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE, program_environment

SCRIPTS = sorted(path for path in (Path(__file__).parent / 'leaks').glob('*.py') if path.name != 'measure.py')

pytestmark = pytest.mark.leak


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.stem)
def test_nothing_is_left_behind(script: Path) -> None:
    finished = subprocess.run(
        [sys.executable, '-W', 'error', script],
        env=program_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    if (finished.returncode, finished.stdout) != (0, ''):
        pytest.fail(finished.stdout or f'ended with {finished.returncode}', pytrace=False)


def test_there_are_scripts() -> None:
    assert {'cycles', 'fresh_endpoints', 'many_endpoints', 'timeouts', 'failures'} <= {path.stem for path in SCRIPTS}
