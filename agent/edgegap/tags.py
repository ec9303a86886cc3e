"""The deployment's own tags, for the local API's `tags` operations and `AGENT_TAGS`.

They are accessed through the injected context URL, or else with an organisation token from the container's environment.
Without either, every operation raises an error that says so.

The client is imported with the first call, because it is a tenth of all imports of the agent, and few games use tags.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pydantic import SecretStr

from agent.edgegap.errors import ConflictError, InvalidArgumentError, NotFoundError, TagsUnreachableError

if TYPE_CHECKING:
    from agent.edgegap.client import EdgegapClient

LONGEST_NAME = 40


class DeploymentTags:
    """Lists, adds and removes tags of the deployment that this container is.

    Each operation opens a connection of its own: tags change a few times in the life of a deployment, and so nothing
    has to be closed.

    Args:
        context_url: `ARBITRIUM_CONTEXT_URL`, where it was injected.
        context_token: `ARBITRIUM_CONTEXT_TOKEN`.
        deployment_id: `ARBITRIUM_REQUEST_ID`; needed only with an organisation token.
        organisation_token: used where there is no context.
        base_url: of the platform, None for the live one; used with the organisation token.
        attempt_seconds: how long one attempt may take; the caller is a game that waits.
        retries: of listing and removing.
    """

    def __init__(
        self,
        *,
        context_url: str | None = None,
        context_token: SecretStr | None = None,
        deployment_id: str | None = None,
        organisation_token: SecretStr | None = None,
        base_url: str | None = None,
        attempt_seconds: float = 5.0,
        retries: int = 2,
    ) -> None:
        """Decide which way is taken; nothing is asked yet."""
        token = _given(context_token)
        self._context = (context_url, token) if context_url and token is not None else None
        self._deployment_id = deployment_id
        self._token = _given(organisation_token)
        self._base_url = base_url
        self._attempt_seconds = attempt_seconds
        self._retries = retries

    @property
    def way(self) -> str | None:
        """How tags are reached: "context", "organisation", or None where they cannot be."""
        if self._context is not None:
            return "context"
        return "organisation" if self._token is not None and self._deployment_id else None

    @property
    def reachable(self) -> bool:
        """Whether there is a way to the tags at all."""
        return self.way is not None

    async def list(self) -> list[str]:
        """Give the names of the tags.

        Raises:
            TagsUnreachableError: there is no way to them.
            EdgegapError: the platform said no.
        """
        async with self._client("list the tags") as platform:
            if self._context is not None:
                url, token = self._context
                return (await platform.get_context(url, token)).tags
            return [tag.name for tag in await platform.list_tags(self._deployment_id or "").first()]

    async def add(self, name: str) -> None:
        """Add a tag; one that is there already is no error.

        Args:
            name: 1 to 40 characters.

        Raises:
            InvalidArgumentError: the platform does not take such a name.
            TagsUnreachableError: there is no way to the tags.
            EdgegapError: the platform said no.
        """
        _check(f"add tag {name!r}", name)
        async with self._client(f"add tag {name}") as platform:
            with contextlib.suppress(ConflictError):
                if self._context is not None:
                    url, token = self._context
                    await platform.create_context_tag(url, token, name)
                else:
                    await platform.create_tag(self._deployment_id or "", name)

    async def remove(self, name: str) -> None:
        """Remove a tag; one that is not there is no error.

        Args:
            name: 1 to 40 characters.

        Raises:
            InvalidArgumentError: the platform does not take such a name.
            TagsUnreachableError: there is no way to the tags.
            EdgegapError: the platform said no.
        """
        _check(f"remove tag {name!r}", name)
        async with self._client(f"remove tag {name}") as platform:
            try:
                if self._context is not None:
                    url, token = self._context
                    await platform.delete_context_tag(url, token, name)
                else:
                    await platform.delete_tag(self._deployment_id or "", name)
            except NotFoundError:
                # 404 is also said for a deployment that is not known; then the list fails too, and says so.
                if name in await self.list():
                    raise

    async def rename(self, name: str, new_name: str) -> None:
        """Give a tag another name.

        Through the context this is two calls, the new one first: when the second fails, both are there.

        Raises:
            InvalidArgumentError: the platform does not take such a name.
            NotFoundError: the deployment does not have that tag.
            ConflictError: it has one of the new name already.
            TagsUnreachableError: there is no way to the tags.
            EdgegapError: the platform said no.
        """
        action = f"rename tag {name} to {new_name}"
        _check(action, name)
        _check(action, new_name)
        async with self._client(action) as platform:
            if self._context is None:
                await platform.update_tag(self._deployment_id or "", name, new_name)
                return
            url, token = self._context
            if name not in (await platform.get_context(url, token)).tags:
                raise NotFoundError(action, f"this deployment has no tag {name}")
            await platform.create_context_tag(url, token, new_name)
            await platform.delete_context_tag(url, token, name)

    def _client(self, action: str) -> EdgegapClient:
        if self.way is None:
            reason = (
                "no context URL was injected and no organisation token was given"
                if self._token is None
                else "an organisation token was given, but ARBITRIUM_REQUEST_ID does not say which deployment this is"
            )
            raise TagsUnreachableError(f"{action} of this deployment", reason)
        from agent.edgegap.client import BASE_URL, EdgegapClient  # noqa: PLC0415 - late: see the module's docstring

        base_url = self._base_url or BASE_URL
        return EdgegapClient(self._token, base_url, attempt_seconds=self._attempt_seconds, retries=self._retries)


def _given(token: SecretStr | None) -> SecretStr | None:
    return token if token is not None and token.get_secret_value().strip() else None


def _check(action: str, name: str) -> None:
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidArgumentError(
            action,
            f"the platform takes names of 1 to {LONGEST_NAME} printable characters, and this has {len(name)}",
            advice="choose another name",
        )
