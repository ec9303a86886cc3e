"""The deployment's own tags; the client, a tenth of all that the agent would import, comes with the first call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr

if TYPE_CHECKING:
    from agent.edgegap.tags import DeploymentTags


class LateTags:
    """`agent.edgegap.tags.DeploymentTags`, made when it is first needed.

    Attributes:
        reachable: whether there is a way to the tags at all: a context that was injected, or an organisation token.
    """

    def __init__(
        self,
        *,
        context_url: str | None,
        context_token: SecretStr | None,
        deployment_id: str | None,
        organisation_token: SecretStr | None,
        base_url: str,
    ) -> None:
        """Keeps the arguments; they are those of `DeploymentTags`."""
        self.reachable = bool((context_url and context_token) or (deployment_id and organisation_token))
        self._context_url = context_url
        self._context_token = context_token
        self._deployment_id = deployment_id
        self._organisation_token = organisation_token
        self._base_url = base_url
        self._made: DeploymentTags | None = None

    async def list(self) -> list[str]:
        """All tags. Raises `AgentError` where they cannot be had, as do the other two."""
        return await self._tags().list()

    async def add(self, name: str) -> None:
        """Adds a tag; one that is there already is no error."""
        await self._tags().add(name)

    async def remove(self, name: str) -> None:
        """Removes a tag; one that is not there is no error."""
        await self._tags().remove(name)

    def _tags(self) -> DeploymentTags:
        if self._made is None:
            from agent.edgegap.tags import DeploymentTags  # noqa: PLC0415 - late: see the module's docstring

            self._made = DeploymentTags(
                context_url=self._context_url,
                context_token=self._context_token,
                deployment_id=self._deployment_id,
                organisation_token=self._organisation_token,
                base_url=self._base_url,
            )
        return self._made
