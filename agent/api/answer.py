"""An answer with a JSON body that is written in one piece; most requests are answered by one.

aiohttp's `Response` collects, checks and serializes its headers for each answer: a quarter of the CPU of a small
request (measured). Between two answers here only the status, the length, the date, and whether the connection stays
open differ.
"""

from __future__ import annotations

import time
from functools import lru_cache
from http import HTTPStatus

from agent import web

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Answer(web.StreamResponse):
    """A complete answer with a JSON body."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        """Takes the body and the HTTP status."""
        super().__init__(status=status)
        self._content = body
        self._request: web.BaseRequest | None = None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open after this answer."""
        return super().keep_alive is None and self._request is not None and self._request.keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Takes the request that is answered; everything is written by `write_eof`."""
        self._request = request

    async def write_eof(self, data: bytes = b"") -> None:
        """Writes headers and body; waits only if the client reads too slowly.

        Raises:
            ConnectionError: the connection was closed.
        """
        request = self._request
        assert request is not None, "it was prepared"
        assert not data, "its body was given when it was made"
        stays, old = self.keep_alive, request.version < web.HttpVersion11
        # The default of each version is not sent: since 1.1 a connection stays open (RFC 9112, 9.3).
        connection = b"" if stays is not old else b"Connection: keep-alive\r\n" if stays else b"Connection: close\r\n"
        head = b"%s%s%sContent-Length: %d\r\n\r\n" % (
            _first_lines(self.status, old),
            _date_line(int(time.time())),
            connection,
            len(self._content),
        )
        await request.writer.write_eof(head if request.method == "HEAD" else head + self._content)


@lru_cache(64)
def _first_lines(status: int, old: bool) -> bytes:
    return (
        f"HTTP/1.{0 if old else 1} {status} {HTTPStatus(status).phrase}\r\n"
        f"Content-Type: application/json\r\nServer: {web.SERVER_SOFTWARE}\r\n"
    ).encode("ascii")


@lru_cache(1)
def _date_line(now: int) -> bytes:
    """The header that each answer needs (RFC 9110, 6.6.1), always in English."""
    at = time.gmtime(now)
    day = f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year}"
    return f"Date: {day} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT\r\n".encode("ascii")
