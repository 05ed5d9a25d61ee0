"""Runs one of the programs: python -m tests.users.programs NAME WAY DATABASE, see ``tests/users/test_users.py``.

Packages such as Procrastinate take it for a mistake to be set up in the main module.
"""

import importlib
import sys

importlib.import_module(f'tests.users.programs.{sys.argv[1]}').main()
print('done')
