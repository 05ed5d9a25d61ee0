"""Whether the body of a request was sent as its header announced it."""

import re
from typing import Any

__all__ = ['RequestBody']

# The length of a chunk's size line or a trailer: a longer line is invalid.
_LONGEST_LINE = 65536
_DIGITS = re.compile(r'[ \t]*[0-9]{1,18}[ \t]*')
_CHUNK_SIZE = re.compile(rb'([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n')
_CHUNKED = re.compile(r'(?:.*,)?\s*chunked\s*', re.IGNORECASE)


class _ChunkedBody:
    """Follows the framing of a chunked body."""

    ended = False
    spoilt = False

    def __init__(self) -> None:
        # Of the chunk that is being sent.
        self._left = 0
        self._line = b''
        self._awaited = 'size'

    def add(self, data: memoryview) -> None:
        while data and not self.spoilt:
            if self.ended:
                self.spoilt = True
            elif self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
            else:
                piece = bytes(data[:_LONGEST_LINE])
                piece = piece[: piece.find(b'\n') + 1] or piece
                data = data[len(piece) :]
                self._line += piece
                if piece.endswith(b'\n'):
                    line, self._line = self._line, b''
                    self._take(line)
                else:
                    self.spoilt = len(self._line) > _LONGEST_LINE

    def _take(self, line: bytes) -> None:
        if self._awaited == 'trailer':
            self.ended = line == b'\r\n'
        elif self._awaited == 'end of chunk':
            self.spoilt = line != b'\r\n'
            self._awaited = 'size'
        elif found := _CHUNK_SIZE.fullmatch(line):
            self._left = int(found[1], 16)
            self._awaited = 'end of chunk' if self._left else 'trailer'
        else:
            self.spoilt = True


class RequestBody:
    """Whether the body of a request was sent as its header announced it."""

    def __init__(self) -> None:
        self._length: int | None = None
        self._chunks: _ChunkedBody | None = None
        self._sent = 0
        self._spoilt = False

    def announce(self, header: str | bytes, values: tuple[Any, ...]) -> None:
        """Record a header."""
        name = _as_text(header).strip().lower()
        if name not in ('content-length', 'transfer-encoding'):
            return
        value = ','.join(map(_as_text, values))
        if self._length is not None or self._chunks is not None:
            # Which of them counts is up to the server.
            self._spoilt = True
        elif name == 'transfer-encoding':
            self._chunks = _ChunkedBody()
            self._spoilt = self._spoilt or _CHUNKED.fullmatch(value) is None
        elif _DIGITS.fullmatch(value):
            self._length = int(value)
        else:
            self._spoilt = True

    def add(self, data: Any) -> None:
        """Record bytes that were sent."""
        view = memoryview(data).cast('B')
        self._sent += len(view)
        if self._chunks is not None:
            self._chunks.add(view)

    def spoil(self) -> None:
        """Record that it is unknown what was sent."""
        self._spoilt = True

    @property
    def is_through(self) -> bool:
        """Whether the whole body was sent, and nothing else."""
        if self._spoilt:
            return False
        if self._chunks is not None:
            return self._chunks.ended and not self._chunks.spoilt
        return self._sent == (self._length or 0)


def _as_text(value: object) -> str:
    return value.decode('latin-1') if isinstance(value, bytes) else str(value)
