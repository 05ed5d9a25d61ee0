"""How Sphinx builds these pages: make docs."""

import builtins
import importlib
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

import gcpool
from gcpool import _limits

ROOT = Path(__file__).resolve().parents[1]
toml = importlib.import_module(
    'tomllib' if sys.version_info >= (3, 11) else 'tomli'
)
METADATA = toml.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))
URLS = METADATA['project'].get('urls', {})
SOURCE = URLS.get('Source', 'https://github.com/gcpool/gcpool')

project = 'gcpool'
author = 'The gcpool developers'
project_copyright = author
version = release = gcpool.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx_copybutton',
    'sphinx_design',
]
source_suffix = {'.md': 'markdown'}
exclude_patterns = ['_build']
nitpicky = True
# References to the interface must lead somewhere. Besides, the docstrings refer
# to the drivers, whose pages cannot be looked up without a network, and to the
# inside of gcpool.
nitpick_ignore_regex = [
    (r'py:.*', r'(?!gcpool\.(threading|asyncio|exceptions)\b).*'),
    (r'py:class', r'gcpool\.exceptions\._.*'),
]

html_theme = 'furo'
html_title = f'gcpool {release}'
html_logo = 'images/logo.svg'
html_favicon = 'images/logo.svg'
html_static_path = ['static']
html_css_files = ['gcpool.css']
html_baseurl = URLS.get('Documentation', 'https://gcpool.readthedocs.io')
pygments_dark_style = 'github-dark'
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    'source_repository': SOURCE,
    'source_branch': 'main',
    'source_directory': 'docs/',
    'footer_icons': [{'name': 'Source', 'url': SOURCE, 'html': 'Source'}],
}

# Outputs have no button: they are nothing to paste.
copybutton_selector = 'div.highlight-python pre, div.highlight-sh pre'

# As they are written: the repr of a class cannot be read as a parameter's
# default.
autodoc_preserve_defaults = True
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
autosummary_generate = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

myst_enable_extensions = ['deflist', 'colon_fence', 'attrs_block']
myst_heading_anchors = 3

# ---- signatures --------------------------------------------------------------


def shown_signature(*event: Any) -> tuple[str | None, str | None]:
    """Show the numbers behind the names of the defaults.

    Parameters that are there for the tests are not shown.
    """
    signature, returns = event[-2:]
    if signature:
        signature = re.sub(r', _\w+: [^=]+ = [^,)]+', '', signature)
        signature = re.sub(
            r'= (DEFAULT_\w+)',
            lambda match: f'= {getattr(_limits, match[1])!r}',
            signature,
        )
    return signature, returns


def public_bases(*event: Any) -> None:
    """Show the bases of a private class in its place."""
    bases = event[-1]
    bases[:] = [
        shown
        for base in bases
        for shown in (
            base.__bases__
            if getattr(base, '__name__', '').startswith('_')
            else (base,)
        )
    ]


# ---- links to Python's documentation -----------------------------------------

PYTHON_DOCS = 'https://docs.python.org/3/library'
# Where a class is not on the page of its module, or has another name there.
ALIASES = {'asyncio.streams': 'asyncio'}
PAGES = {
    'asyncio.StreamReader': 'asyncio-stream',
    'asyncio.StreamWriter': 'asyncio-stream',
    'asyncio.AbstractEventLoop': 'asyncio-eventloop',
    'asyncio.CancelledError': 'asyncio-exceptions',
    'asyncio.TimeoutError': 'asyncio-exceptions',
    'asyncio.Task': 'asyncio-task',
}
FUNCTIONS = {'bool', 'complex', 'float', 'int', 'object', 'slice', 'type'}
# Names that signatures give without their module.
MODULES = {
    'Any': 'typing',
    'AbstractAsyncContextManager': 'contextlib',
    'AbstractContextManager': 'contextlib',
    'Awaitable': 'collections.abc',
    'Callable': 'collections.abc',
    'Coroutine': 'collections.abc',
    'Hashable': 'collections.abc',
    'Iterable': 'collections.abc',
    'Mapping': 'collections.abc',
    'Path': 'pathlib',
    'Sequence': 'collections.abc',
}


def python_page(target: str) -> str | None:
    """Return the address of a name of Python's library; None if it is none.

    Worked out instead of looked up, so that a build needs no network.
    """
    if target in MODULES:
        target = f'{MODULES[target]}.{target}'
    what = getattr(builtins, target, None)
    if isinstance(what, type):
        if issubclass(what, BaseException):
            page = 'exceptions'
        else:
            page = 'functions' if target in FUNCTIONS else 'stdtypes'
        return f'{PYTHON_DOCS}/{page}.html#{target}'
    module, _, name = target.rpartition('.')
    module = ALIASES.get(module, module)
    target = f'{module}.{name}'
    if not name or module.split('.')[0] not in sys.stdlib_module_names:
        return None
    return f'{PYTHON_DOCS}/{PAGES.get(target, module)}.html#{target}'


def link_to_python(*event: Any) -> nodes.Node | None:
    """Resolve what is not on these pages."""
    node, content = event[-2:]
    if node.get('refdomain') != 'py':
        return None
    address = python_page(node['reftarget'])
    if address is None:
        return None
    return nodes.reference('', '', content, internal=False, refuri=address)


# ---- pictures ----------------------------------------------------------------

DARK = re.compile(
    r'@media \(prefers-color-scheme: dark\) \{(.*?\n) {4}\}', re.DOTALL
)


def variant(name: str, theme: str) -> str:
    """Return the name of a picture for one of the two themes."""
    return name.replace('.svg', f'.{theme}.svg')


def has_themes(path: Path) -> bool:
    """Tell whether a picture has colours of its own for a dark page."""
    return (
        path.suffix == '.svg'
        and DARK.search(path.read_text(encoding='utf-8')) is not None
    )


def show_both(app: Sphinx, doctree: nodes.document, _page: str) -> None:
    """Put two pictures in the place of one: the theme shows one of them.

    A picture in a page follows the system, and not the switch of the theme.
    """
    for image in list(doctree.findall(nodes.image)):
        path = Path(app.srcdir, image['uri'])
        if image['uri'] in app.env.images and has_themes(path):
            dark = image.deepcopy()
            for node, theme in ((image, 'light'), (dark, 'dark')):
                node['classes'].append(f'only-{theme}')
                node['theme'] = theme
            image.parent.insert(image.parent.index(image) + 1, dark)


def visit_image(translator: Any, node: nodes.image) -> None:
    """Write an ``img`` that leads to the variant of its theme."""
    theme = node.get('theme')
    if theme is None:
        type(translator).visit_image(translator, node)
        return
    uri = node['uri']
    images = translator.builder.images
    name = images[uri]
    images[uri] = variant(name, theme)
    try:
        type(translator).visit_image(translator, node)
    finally:
        images[uri] = name


def depart_image(translator: Any, node: nodes.image) -> None:
    """Do what the translator does."""
    type(translator).depart_image(translator, node)


def write_variants(app: Sphinx, error: Exception | None) -> None:
    """Write the two variants of each picture that has them."""
    if error is not None or app.builder.format != 'html':
        return
    for _, name in app.env.images.values():
        path = Path(app.outdir, '_images', name)
        if path.exists() and has_themes(path):
            text = path.read_text(encoding='utf-8')
            for theme, style in (('light', ''), ('dark', r'\1')):
                path.with_name(variant(name, theme)).write_text(
                    DARK.sub(style, text), encoding='utf-8'
                )


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect('autodoc-process-signature', shown_signature)
    app.connect('autodoc-process-bases', public_bases)
    app.connect('missing-reference', link_to_python)
    app.connect('doctree-resolved', show_both)
    app.connect('build-finished', write_variants)
    app.add_node(nodes.image, override=True, html=(visit_image, depart_image))
