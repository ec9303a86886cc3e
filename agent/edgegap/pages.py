"""Paged lists as async iterators."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agent.edgegap.errors import BadRequestError, NotFoundError, UnexpectedAnswerError
from agent.edgegap.wire import Wire

Item = TypeVar("Item", bound=Wire)
MOST_PAGES = 10_000
"""Pages of one list; a platform that goes on giving pages for ever is broken."""


class Pagination(Wire):
    """What a list says about its pages."""

    number: int | None = None
    next_page_number: int | None = None
    has_next: bool | None = None


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
        pagination: what the platform says about pages; None where it says nothing.
    """

    number: int
    items: list[Item]
    total_count: int | None = None
    pagination: Pagination | None = None

    @property
    def promises_more(self) -> bool:
        """Whether the platform said that a page follows."""
        return bool(self.pagination and self.pagination.has_next)


class Pages(Generic[Item]):
    """A list on the platform; iterating asks for pages as they are needed.

        async for deployment in client.list_deployments(): ...
        async for page in client.list_deployments().pages(): ...

    What changes on the platform between two pages can be missed or seen twice.
    """

    def __init__(
        self, action: str, fetch: Callable[[int], Awaitable[Page[Item]]], page_size: int | None = None
    ) -> None:
        """Nothing is asked yet.

        Args:
            action: what is done, for errors: "list deployments".
            fetch: gets a page by its number.
            page_size: how many items a page has that is not the last; None where nobody knows.
        """
        self._action = action
        self._fetch = fetch
        self._page_size = page_size

    async def pages(self) -> AsyncIterator[Page[Item]]:
        """Give page after page.

        Raises:
            EdgegapError: a page could not be had.
        """
        page: Page[Item] | None = None
        number: int | None = 1
        seen = asked = 0
        while number is not None:
            if asked == MOST_PAGES:
                raise UnexpectedAnswerError(self._action, f"the list has more than {MOST_PAGES} pages")
            asked += 1
            try:
                following = await self._fetch(number)
            except (BadRequestError, NotFoundError):
                if page is None or page.promises_more:
                    raise
                return  # how some servers answer for a page behind the last
            if page is not None and following.items == page.items:
                return  # a server that knows no pages gives the same items for every number
            page = following
            yield page
            seen += len(page.items)
            number = next_number(page, seen, self._page_size)

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


def next_number(page: Page[Any], seen: int, page_size: int | None) -> int | None:
    """Decide which page follows, so that every list is read whole, and none is endless whatever an answer says.

    Some lists have no `pagination`, and of these some have no `total_count` either (documented): then the next page is
    asked for until one is empty, short, or the same again.

    Args:
        page: the last one that was had.
        seen: how many items there were, with those of this page.
        page_size: how many were asked for at once; None: the platform decided.

    Returns:
        Its number, greater than that of the page; None where there is none.
    """
    if not page.items:
        return None
    if page.pagination is not None and page.pagination.has_next is not None:
        if not page.pagination.has_next:
            return None
        following = page.pagination.next_page_number
        return following if following is not None and following > page.number else page.number + 1
    if page.total_count is not None:
        return page.number + 1 if seen < page.total_count else None
    return page.number + 1 if page_size is None or len(page.items) >= page_size else None
