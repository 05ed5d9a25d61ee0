"""Runs the steps of a check, each within the time limit, and prints what it finds."""

import queue
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gcpool._check.targets import CheckError, Target, find_target

__all__ = ['NOT_WORKING', 'run_check']

NOT_WORKING = 1
USAGE_ERROR = 2

# How many round trips are measured.
ROUNDS = 10

# Characters of a password that may be a part of ordinary words.
SHORT = 4

ResultT = TypeVar('ResultT')


def run_check(urls: Sequence[str], timeout: float, say: Callable[[str], object]) -> int:
    """Try an endpoint, and say what works.

    :param urls: the arguments of the command line, of which there may be one
    :param timeout: seconds that each step may take
    :param say: prints a line
    :return: the exit code: 0 if all steps worked, 1 if one did not, 2 for a URL that cannot be checked
    """
    try:
        if len(urls) > 1:
            raise CheckError('expected one URL: put it in quotes, so that the shell does not split it')
        target = find_target(urls[0])
    except CheckError as error:
        say(f'Cannot check this: {error}')
        return USAGE_ERROR
    say(f'Checking {target.text}')
    return _Check(target, timeout, say).run()


class _Failed(Exception):
    """A step did not work, and that was said."""


class _Check:
    def __init__(self, target: Target, timeout: float, say: Callable[[str], object]):
        self._target = target
        self._timeout = timeout
        self._say = say

    def run(self) -> int:
        target = self._target
        try:
            if target.address is not None:
                self._reach(*target.address)
            if target.manager is not None:
                self._use()
        except _Failed:
            return NOT_WORKING
        self._say('All of it works.')
        return 0

    def _reach(self, host: str, port: int) -> None:
        found = self._step('resolves', lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), _of_name(host))
        addresses = [*dict.fromkeys(str(each[4][0]) for each in found)]
        self._works('resolves', f'{host} is {", ".join(addresses)}')
        begun = time.perf_counter()
        self._step('connects', lambda: socket.create_connection((host, port), self._timeout).close(), _of_port(port))
        self._works('connects', f'to port {port} in {_milliseconds(time.perf_counter() - begun)}')

    def _use(self) -> None:
        target = self._target
        manager, endpoint = target.manager, target.endpoint
        begun = time.perf_counter()
        conn = self._step('opens', lambda: manager.create(endpoint, timeout=self._timeout))
        name = f'{type(manager).__module__}.{type(manager).__name__}'
        self._works('opens', f'by {name} in {_milliseconds(time.perf_counter() - begun)}')
        # After a step that hangs, its thread still uses the connection: it ends with the process.
        self._ask(conn)
        self._step('closes', lambda: manager.dispose(endpoint, conn, timeout=self._timeout))
        self._works('closes', 'the connection')

    def _ask(self, conn: Any) -> None:
        ping, limit = self._target.ping, self._target.limit
        if ping is not None:
            times = []
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                self._step('ping', lambda: ping(conn))
                times.append(time.perf_counter() - begun)
            self._works('ping', f'{_milliseconds(statistics.median(times))} a round trip (median of {ROUNDS})')
        if limit is not None:
            self._works('limit', self._step('limit', lambda: limit(conn)))

    def _works(self, name: str, text: str) -> None:
        self._say(f'  ok      {name:9} {text}')

    def _step(
        self, name: str, function: Callable[[], ResultT], explain: Callable[[Exception], str] | None = None
    ) -> ResultT:
        """Do one step.

        :param explain: makes a text of an error that knows no password; None for the error of a driver
        """
        explain = explain or self._redacted
        try:
            return _within(self._timeout, function)
        except Exception as error:  # noqa: BLE001
            text = explain(error).strip() or type(error).__name__
            self._say(f'  FAILED  {name:9} {text}')
            raise _Failed from None

    def _redacted(self, error: Exception) -> str:
        text = str(error)
        for secret in self._target.secrets:
            # A short one may be a part of many words: it is replaced where it is a word by itself.
            hidden = re.escape(secret) if len(secret) > SHORT else rf'(?<!\w){re.escape(secret)}(?!\w)'
            text = re.sub(hidden, '***', text)
        return text


def _within(timeout: float, function: Callable[[], ResultT]) -> ResultT:
    """Call a function in a thread, because a resolver, or a driver, may take no time limit."""
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def call() -> None:
        try:
            answers.put((function(), None))
        except BaseException as error:  # noqa: BLE001
            answers.put((None, error))

    threading.Thread(target=call, name='gcpool-check', daemon=True).start()
    try:
        # What takes a limit itself says more than this, so it goes first.
        answer, error = answers.get(timeout=timeout + 0.5)
    except queue.Empty:
        raise TimeoutError(f'no answer within {timeout:g} s') from None
    if error is not None:
        raise error
    result: ResultT = answer
    return result


def _of_name(host: str) -> Callable[[Exception], str]:
    return lambda error: f'the name {host!r} is not known here ({error}): check its spelling, and the DNS'


def _of_port(port: int) -> Callable[[Exception], str]:
    def explain(error: Exception) -> str:
        if isinstance(error, ConnectionRefusedError):
            return f'nothing listens on port {port}: check the port, and whether the server runs'
        if isinstance(error, TimeoutError):
            return f'no answer on port {port}: check the address; a firewall may drop what is sent there'
        return str(error)

    return explain


def _milliseconds(seconds: float) -> str:
    return f'{seconds * 1000:.3g} ms'
