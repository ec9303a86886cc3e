"""Lists that come in pages, as async iterators."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agent.edgegap.wire import Wire

Item = TypeVar("Item", bound=Wire)


class Pagination(Wire):
    """What a list says about its pages."""

    number: int | None = None
    next_page_number: int | None = None
    has_next: bool = False


class RawPage(Wire):
    """A page before its items are read; they are in another field for every list."""

    total_count: int | None = None
    pagination: Pagination | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page.

    Attributes:
        number: counted from 1.
        items: what it holds.
        total_count: of items on all pages, None where the platform does not say.
        next_number: of the page that follows, None on the last one.
    """

    number: int
    items: list[Item]
    total_count: int | None
    next_number: int | None


class Pages(Generic[Item]):
    """A list on the platform; iterating asks for pages as they are needed.

        async for deployment in client.list_deployments(): ...
        async for page in client.list_deployments().pages(): ...

    What changes on the platform between two pages can be missed or seen twice.
    """

    def __init__(self, fetch: Callable[[int], Awaitable[Page[Item]]]) -> None:
        """Take what gets a page by its number; nothing is asked yet."""
        self._fetch = fetch

    async def pages(self) -> AsyncIterator[Page[Item]]:
        """Give page after page.

        Raises:
            EdgegapError: a page could not be had.
        """
        number: int | None = 1
        while number is not None:
            page = await self._fetch(number)
            yield page
            number = page.next_number

    async def __aiter__(self) -> AsyncIterator[Item]:
        """Give item after item, over all pages."""
        async for page in self.pages():
            for item in page.items:
                yield item

    async def first(self, count: int | None = None) -> list[Item]:
        """Collect items.

        Args:
            count: at most so many; None for all.
        """
        items: list[Item] = []
        async for page in self.pages():
            items += page.items
            if count is not None and len(items) >= count:
                return items[:count]
        return items


def next_number(number: int, pagination: Pagination | None, items: list[Any]) -> int | None:
    """Decide which page follows, so that no answer, however wrong, makes the iteration endless.

    The live API leaves the pagination out of some lists: then there is one page.
    """
    if pagination is None or not pagination.has_next or not items:
        return None
    following = pagination.next_page_number
    return following if following is not None and following > number else number + 1
