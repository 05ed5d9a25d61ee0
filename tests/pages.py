"""The code blocks of README.md, CONTRIBUTING.md and of the pages below docs/, as CommonMark sees them.

What is done with a block depends on its language (see ``tests/test_docs.py``) and on a comment in the line before it:

``<!-- not run: REASON -->``
    It is only shown.
``<!-- output -->``
    It is what the Python block before it prints.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]

COMMENT = re.compile(r'<!--\s*(?:not run:\s*(?P<reason>.*?)|(?P<output>output))\s*-->\s*', re.DOTALL)

# Directives of MyST whose body is a piece of a page. The others have arguments and options only.
CONTAINERS = frozenset({'{note}', '{tip}', '{warning}'})


@dataclass(frozen=True)
class Block:
    """A fenced block.

    :param language: the first word behind the fence, empty if there is none
    :param argument: what follows it
    :param code: what stands in it
    :param line: how many lines of the page stand before its first one
    :param reason: why it is not run, None if it does not say so
    :param is_output: whether it is what the block before it prints
    """

    language: str
    argument: str
    code: str
    line: int
    reason: str | None = None
    is_output: bool = False


class UnclearBlock(Exception):
    """Code that stands in a page in a form that is not looked into."""


def pages() -> list[Path]:
    """The pages whose code is looked at."""
    others = ('README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CODE_OF_CONDUCT.md')
    return [*(ROOT / name for name in others), *sorted((ROOT / 'docs').rglob('*.md'))]


def page_name(page: Path) -> str:
    """What a page is called in the tests."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(text: str, first_line: int = 0) -> Iterator[Block]:
    """Give the blocks of a page, also those within lists, quotations and notes.

    :param text: the page
    :param first_line: how many lines stand before it
    :raise UnclearBlock: there is code without a fence, or a comment that belongs to no block
    """
    comment: re.Match[str] | None = None
    for token in MarkdownIt('commonmark').parse(text):
        line = first_line + (token.map[0] if token.map else 0)
        if comment is not None and token.type != 'fence':
            raise UnclearBlock(f'line {line}: {comment[0].strip()!r} does not stand right before a block')
        if token.type == 'code_block' or (token.type == 'html_block' and '<pre' in token.content.lower()):
            raise UnclearBlock(f'line {line + 1}: code without a fence is not looked at')
        if token.type == 'html_block':
            comment = COMMENT.fullmatch(token.content)
            if comment is None and re.search(r'<!--\s*(not[ -]run|output)', token.content):
                raise UnclearBlock(f'line {line + 1}: {token.content.strip()!r} is no comment that is understood')
        elif token.type == 'fence':
            language, _, argument = token.info.strip().partition(' ')
            if language in CONTAINERS:
                if comment is not None:
                    raise UnclearBlock(f'line {line}: a comment belongs right before the block within')
                yield from blocks_of(token.content, line + 1)
            else:
                reason = comment['reason'] if comment else None
                is_output = comment is not None and comment['output'] is not None
                yield Block(language, argument.strip(), token.content, line + 1, reason, is_output)
            comment = None
    if comment is not None:
        raise UnclearBlock(f'{comment[0].strip()!r} at the end does not stand before a block')


def inline_code_of(text: str) -> list[str]:
    """Give the code that stands within sentences.

    :param text: the page
    """
    tokens = MarkdownIt('commonmark').parse(text)
    return [child.content for token in tokens for child in token.children or () if child.type == 'code_inline']


def links_of(text: str) -> list[str]:
    """Give what the links and pictures of a page lead to.

    :param text: the page
    """
    found = []
    for token in MarkdownIt('commonmark').parse(text):
        for child in token.children or ():
            target = child.attrGet('href') or child.attrGet('src')
            if isinstance(target, str):
                found.append(target)
    return found
