"""How Sphinx builds these pages: make docs."""

import re
from typing import Any

from sphinx.application import Sphinx

import gcpool
from gcpool import _limits

project = 'gcpool'
author = 'The gcpool developers'
project_copyright = author
version = release = gcpool.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc']
source_suffix = {'.md': 'markdown'}
exclude_patterns = ['_build']
nitpicky = True
# References to the interface must lead somewhere. Besides, the docstrings refer to Python and to the drivers, which
# cannot be looked up without a network, and to the inside of gcpool.
nitpick_ignore_regex = [
    (r'py:.*', r'(?!gcpool\.(threading|asyncio|exceptions)\b).*'),
    (r'py:class', r'gcpool\.exceptions\._.*'),
]

html_theme = 'furo'
html_title = f'gcpool {release}'
html_copy_source = False
html_show_sphinx = False

# As they are written: the repr of a class cannot be read as a parameter's default.
autodoc_preserve_defaults = True
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

myst_enable_extensions = ['deflist']
myst_heading_anchors = 3


def shown_signature(*event: Any) -> tuple[str | None, str | None]:
    """Show no parameter that is there for the tests, and the numbers behind the names of the defaults."""
    signature, returns = event[-2:]
    if signature:
        signature = re.sub(r', _\w+: [^=]+ = [^,)]+', '', signature)
        signature = re.sub(r'= (DEFAULT_\w+)', lambda match: f'= {getattr(_limits, match[1])!r}', signature)
    return signature, returns


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect('autodoc-process-signature', shown_signature)
