"""Runs the Python blocks of one page, in order and in one namespace; what it is to run comes as JSON on standard input.

The page runs as often as ``times`` says, each time in a new namespace: a reader who runs a page again gets what the
page says, whatever the first run has left behind. Tracebacks name the page and its lines.
"""

import contextlib
import io
import json
import sys
import types


def run_page(page: str, blocks: list[tuple[int, str, str | None]], times: int = 1) -> None:
    """Run the blocks.

    :param page: path of the page, for tracebacks
    :param blocks: for each one the number of lines before it, its code, and what it is to print (None: it may print
        anything)
    :param times: how often
    """
    for _ in range(times):
        run_blocks(page, blocks)


def run_blocks(page: str, blocks: list[tuple[int, str, str | None]]) -> None:
    """Run the blocks once, as a program of their own."""
    module = types.ModuleType('__main__')
    sys.modules['__main__'] = module
    namespace = vars(module)
    for line, code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile('\n' * line + code, page, 'exec', dont_inherit=True), namespace)
        if expected is not None and printed.getvalue() != expected:
            sys.exit(f'{page}, line {line + 1}: expected the output\n{expected}\nbut got\n{printed.getvalue()}')


if __name__ == '__main__':
    run_page(**json.load(sys.stdin))
