"""Runs a program under ThreadSanitizer, and fails if a report names gcpool.

    run_tsan.py DIRECTORY PYTHON PROGRAM [ARGUMENT ...]

DIRECTORY is what ``build_variant.py tsan DIRECTORY PYTHON`` made. Reports that do not name the compiled core are
CPython's own, and only counted.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

BOUNDARY = re.compile(r'^=+$', re.MULTILINE)
# A frame in the core: by its source or its file if the debugging information is there, else by its function.
CORE = re.compile(r'gcpool/_core\.|\b_core\.[\w-]*\.so\b|_6gcpool_')
WHERE_SUPPRESSIONS_ARE = 'import sysconfig; print(sysconfig.get_config_var("srcdir"))'


def suppressions(python: str) -> list[str]:
    """Find CPython's own list of reports that mean nothing. Only an interpreter that was not installed has it."""
    source = subprocess.run([python, '-I', '-c', WHERE_SUPPRESSIONS_ARE], stdout=subprocess.PIPE, text=True, check=True)
    path = Path(source.stdout.strip(), 'Tools', 'tsan', 'suppressions_free_threading.txt')
    return [f'suppressions={path}'] if path.exists() else []


def main() -> None:
    """Run the command line."""
    directory, (python, *command) = Path(sys.argv[1]).resolve(), sys.argv[2:]
    for old in directory.glob('report.*'):
        old.unlink()
    # history_size: how far back a report can tell where the earlier access was made; beyond that it names nothing.
    options = ['exitcode=0', f'log_path={directory / "report"}', 'history_size=5', *suppressions(python)]
    environment = os.environ | {
        'PYTHONPATH': str(directory / 'src'),
        'PYTHON_GIL': '0',
        'PYTHONDONTWRITEBYTECODE': '1',
        'TSAN_OPTIONS': ':'.join(options),
    }
    finished = subprocess.run([python, *command], env=environment, check=False)
    text = '\n'.join(path.read_text(errors='replace') for path in sorted(directory.glob('report.*')))
    reports = [report.strip() for report in BOUNDARY.split(text) if 'ThreadSanitizer' in report]
    ours = [report for report in reports if CORE.search(report)]
    for report in ours:
        print(report, end='\n\n')
    print(f'{len(ours)} reports of ThreadSanitizer name gcpool, {len(reports) - len(ours)} do not')
    if finished.returncode:
        raise SystemExit(f'the program failed: {finished.returncode}')
    if ours:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
