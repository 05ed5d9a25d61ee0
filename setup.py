"""The compiled core. Everything else about the package stands in pyproject.toml.

The build that is published holds no symbols for a debugger: they are six sevenths of it. Each of these environment
switches makes a build of its own, which keeps them:

``GCPOOL_ASSERT=1``
    Compile-time assertions: the C macro ``GCPOOL_ASSERT`` is 1, ``assert`` counts in Cython and in C (``NDEBUG`` is
    undefined). In every other build ``assert`` statements of Cython code are compiled out.
``GCPOOL_TRACE=1``
    Line tracing for coverage.
"""

import os
import sys
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def switched_on(name: str) -> bool:
    value = os.environ.get(name, '0')
    if value not in {'', '0', '1'}:
        raise SystemExit(f'{name} must be 0 or 1, not {value!r}')
    return value == '1'


ASSERT = switched_on('GCPOOL_ASSERT')
TRACE = switched_on('GCPOOL_TRACE')

directives = {
    'language_level': 3,
    'freethreading_compatible': True,
    'auto_pickle': False,
}
define: list[tuple[str, str | None]] = []
undefine: list[str] = []

if ASSERT:
    define += [('GCPOOL_ASSERT', '1')]
    undefine += ['NDEBUG']
else:
    define += [('CYTHON_WITHOUT_ASSERTIONS', '1')]

if TRACE:
    directives['linetrace'] = True
    # From Python 3.13 on Cython reports to sys.monitoring unless told not to, and coverage's Cython plugin is a
    # tracer: _core.pyx would be missing from the report without a word.
    define += [('CYTHON_TRACE', '1'), ('CYTHON_TRACE_NOGIL', '1'), ('CYTHON_USE_SYS_MONITORING', '0')]


# What tells the linker to leave the symbols out that nobody links to. Other systems have linkers of their own.
STRIP = {'linux': ['-Wl,-s'], 'darwin': ['-Wl,-x']}


class BuildExt(build_ext):
    """Chooses the flags once the compiler is known."""

    def build_extensions(self) -> None:
        msvc = self.compiler.compiler_type == 'msvc'
        link_flags: list[str] = []
        if TRACE:
            flags = ['/Od'] if msvc else ['-O1']
        elif ASSERT:
            flags = ['/O2', '/Zi'] if msvc else ['-O2', '-g']
        elif msvc:
            flags = ['/O2']
        else:
            # -g0, because most Pythons have -g among the flags that they were built with.
            flags = ['-O3', '-g0']
            link_flags = STRIP.get(sys.platform, [])
        for extension in self.extensions:
            extension.extra_compile_args = [*extension.extra_compile_args, *flags]
            extension.extra_link_args = [*extension.extra_link_args, *link_flags]
        super().build_extensions()


setup(
    ext_modules=cythonize(
        [
            Extension(
                'gcpool._core',
                ['src/gcpool/_core.pyx'],
                depends=[*glob('src/gcpool/**/*.pxd', recursive=True), *glob('src/gcpool/**/*.pxi', recursive=True)],
                define_macros=define,
                undef_macros=undefine,
                # For pthread_atfork(), which older C libraries keep apart.
                extra_link_args=[] if os.name == 'nt' else ['-pthread'],
            )
        ],
        compiler_directives=directives,
        # The time stamps, by which both decide what is out of date, do not tell one kind of build from another.
        force=True,
    ),
    cmdclass={'build_ext': BuildExt},
    options={'build_ext': {'force': '1'}},
)
