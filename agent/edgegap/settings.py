"""What `platform` and `discover` read from their environment: the token, the address, and what some commands need.

Only an operator's commands import this module. The agent itself reads its own settings from `agent.config.table`, as
the init does, which cannot import pydantic-settings.
"""

from __future__ import annotations

import os

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from agent.edgegap.client import BASE_URL, EdgegapClient
from agent.edgegap.errors import MissingTokenError

SECRETS = "/run/secrets"
"""Where engines mount secrets (https://docs.docker.com/engine/swarm/secrets/); `edgegap_api_token` is a file in it."""


class PlatformSettings(BaseSettings):
    """`EDGEGAP_*` variables, or else files of the same names, in lower case, in the directory of secrets.

    Attributes:
        api_token: the organisation's token; "" if it is missing.
        base_url: of the platform, or of an emulator.
        registry_token: for a private registry; None if it is missing.
        storage_secret: the secret access key of a storage; "" if it is missing.
    """

    model_config = SettingsConfigDict(
        env_prefix="EDGEGAP_", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True, frozen=True
    )

    api_token: SecretStr = SecretStr("")
    base_url: str = BASE_URL
    registry_token: SecretStr | None = None
    storage_secret: SecretStr = SecretStr("")


def client() -> EdgegapClient:
    """A client for the platform, or the emulator, that the environment names.

    Raises:
        MissingTokenError: there is no token.
        InvalidArgumentError: the address is none.
    """
    found = load()
    token = found.api_token.get_secret_value().strip()
    if not token:
        raise MissingTokenError("call the platform", f"EDGEGAP_API_TOKEN is not set, nor {SECRETS}/edgegap_api_token")
    return EdgegapClient(token, found.base_url.strip() or BASE_URL)


def load(secrets: str = SECRETS) -> PlatformSettings:
    """Reads all of them; a directory of secrets that is not there, or not readable, has none.

    Args:
        secrets: the directory.
    """
    usable = os.path.isdir(secrets) and os.access(secrets, os.R_OK | os.X_OK)
    # The option's name begins with an underscore, but it is public: see "Secrets" in pydantic-settings' documentation.
    return PlatformSettings(_secrets_dir=secrets if usable else None)
