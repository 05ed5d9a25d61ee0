"""Refuses a wheel that is larger than it needs to be.

    check_wheel.py DIRECTORY

DIRECTORY holds the wheels, each of which is looked at.
"""

import argparse
import sys
import zipfile
from pathlib import Path

# Bytes. The core with its debugging symbols alone would be three times that.
LIMIT = 900_000
LARGEST = 5


def fault_of(wheel: Path) -> str | None:
    """Say what is wrong with the size of a wheel.

    :param wheel: its file
    :return: one sentence, or None if the wheel is within the limit
    """
    size = wheel.stat().st_size
    if size <= LIMIT:
        return None
    with zipfile.ZipFile(wheel) as archive:
        files = sorted(archive.infolist(), key=lambda info: -info.compress_size)[:LARGEST]
    largest = ', '.join(f'{info.filename} {info.compress_size:,}' for info in files)
    return f'{wheel.name} has {size:,} bytes, and the limit is {LIMIT:,}; its largest files: {largest}'


def main() -> int:
    """Run the command line.

    :return: 0 if all wheels are within the limit, else 1
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('directory', type=Path)
    directory: Path = parser.parse_args().directory
    wheels = sorted(directory.glob('*.whl'))
    faults = [fault for fault in map(fault_of, wheels) if fault is not None]
    if not wheels:
        faults = [f'there is no wheel in {directory}']
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(*(f'{wheel.name}: {wheel.stat().st_size:,} of {LIMIT:,} bytes' for wheel in wheels), sep='\n')
    return int(bool(faults))


if __name__ == '__main__':
    sys.exit(main())
