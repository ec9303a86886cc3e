"""The platform's error answers as exceptions: what could not be done, why, and what to do about it.

Every message has the form: `cannot <action>: <what the platform said> (<status>); <what to do>`. No message contains a
token, a stop key or a security number.
"""

from agent.errors import AgentError


class EdgegapError(AgentError):
    """A call to the platform did not do what it was for; the base of all errors of this room.

    Attributes:
        action: what was tried, as in "stop deployment 23c01225b99d".
        status: HTTP status, None where no answer came or none was asked for.
        message: what the platform said, or what happened instead of an answer.
        advice: what to do.
    """

    advice = "try again later; if it stays, tell the platform's support"

    def __init__(self, action: str, message: str, status: int | None = None, advice: str | None = None) -> None:
        """Compose the sentence; `advice` replaces the one of the class."""
        self.action = action
        self.status = status
        self.message = message
        if advice is not None:
            self.advice = advice
        code = f" ({status})" if status is not None else ""
        super().__init__(f"cannot {action}: {message}{code}; {self.advice}")


class MissingTokenError(EdgegapError):
    """The call needs an organisation token and there is none."""

    advice = "create an API token in the dashboard and set EDGEGAP_API_TOKEN"


class InvalidArgumentError(EdgegapError):
    """The value cannot be sent at all; nothing was asked."""

    advice = "correct the value"


class BadRequestError(EdgegapError):
    """400: a value the platform does not take, or, on the live API, an unknown deployment id."""

    advice = "correct the request, or the id in it: the platform also answers 400 for a deployment it does not know"


class UnauthorisedError(EdgegapError):
    """401: no token, or a wrong one."""

    advice = "check the token: EDGEGAP_API_TOKEN (AGENT_API_TOKEN in the agent), or the one that was injected"


class ForbiddenError(EdgegapError):
    """403: the token is valid, but not for this."""

    advice = "use a token of the organisation that owns it"


class NotFoundError(EdgegapError):
    """404: there is no such thing."""

    advice = "check the name or the id"


class ConflictError(EdgegapError):
    """409: it exists already."""

    advice = "choose another name, or use the one that exists"


class GoneError(EdgegapError):
    """410: the deployment is terminated already."""

    advice = "nothing is left to do: it is stopped and no longer billed"


class UnprocessableError(EdgegapError):
    """422: understood, but it cannot be done; for a deploy: no server could be allocated.

    Attributes:
        deployment_id: of the deployment that exists, in error, after a deploy that found no server; else None.
    """

    advice = "try other locations or hosts, or ask for less CPU or memory"

    def __init__(
        self,
        action: str,
        message: str,
        status: int | None = None,
        advice: str | None = None,
        deployment_id: str | None = None,
    ) -> None:
        """Keep the id of the deployment that failed, so that it can be looked at."""
        self.deployment_id = deployment_id
        super().__init__(
            action, f"{message} [deployment {deployment_id}]" if deployment_id else message, status, advice
        )


class RateLimitedError(EdgegapError):
    """429: too many requests.

    Attributes:
        retry_after: seconds the platform asked to wait, None where it did not say.
    """

    advice = "wait and ask less often: the platform takes 40 deploys, 20 status calls and 10 lists a second"

    def __init__(
        self,
        action: str,
        message: str,
        status: int | None = None,
        advice: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Keep what the platform said about when to come back."""
        self.retry_after = retry_after
        if advice is None and retry_after:
            advice = f"wait {retry_after:g} s and ask less often"
        super().__init__(action, message, status, advice)


class UnavailableError(EdgegapError):
    """5xx, no connection, or no answer in time: nobody knows whether the call was carried out.

    Attributes:
        retry_after: seconds the platform asked to wait, None where it did not say.
    """

    advice = "check the network and EDGEGAP_BASE_URL (AGENT_API_URL in the agent), then try again"

    def __init__(
        self,
        action: str,
        message: str,
        status: int | None = None,
        advice: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Keep what the platform said about when to come back."""
        self.retry_after = retry_after
        super().__init__(action, message, status, advice)


class UnexpectedAnswerError(EdgegapError):
    """An answer that the contract does not have: an unknown status, a redirect, or a body of another form."""

    advice = "check that EDGEGAP_BASE_URL is the platform and not a proxy"


class DeploymentFailedError(EdgegapError):
    """Waiting for ready is pointless: the deployment is in error, or is ending."""

    advice = "look at its status and logs (`arbitrium-agent platform status`, `platform logs`)"


class DeadlineExceededError(EdgegapError, TimeoutError):
    """The state that was waited for did not come in time."""

    advice = "wait longer, or look at its status (`arbitrium-agent platform status`)"


class TagsUnreachableError(EdgegapError):
    """Neither a context URL nor an organisation token is there to reach the deployment's tags with."""

    advice = (
        "the platform injects ARBITRIUM_CONTEXT_URL and ARBITRIUM_CONTEXT_TOKEN only for some deployments; "
        "set AGENT_API_TOKEN to an organisation token to use that instead"
    )


BY_STATUS: dict[int, type[EdgegapError]] = {
    400: BadRequestError,
    401: UnauthorisedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: UnprocessableError,
    429: RateLimitedError,
}
"""The class for each status of the contract; 5xx are `UnavailableError`, all others `UnexpectedAnswerError`."""
