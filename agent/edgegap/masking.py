"""Masks secrets in URLs and messages.

The injected URLs are partly secret: the stop key in `…/v1/self/stop/<id>/<stop key>` is one half of the credentials for
a stop, and the security number of the context URL is similar. So a URL is shown with that segment masked, and all
secret values are removed from a message from outside before it is shown.

Only the standard library is imported here, because the self-stop must not depend on other modules.
"""

import re
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

MASK = "***"
_CREDENTIAL_PATH = re.compile(r"^(?P<open>.*/v\d+/(?:self/stop|context)/[^/]+/)(?P<secret>[^/]+)(?P<rest>/.*)?$")
_PLAIN_QUERY = frozenset({"container_log_storage"})
_MESSAGE_LIMIT = 500


def secret_of_url(url: str) -> str | None:
    """Give the stop key or the security number in an injected URL, None where the URL has another form."""
    match = _CREDENTIAL_PATH.match(_path(url))
    return match["secret"] if match else None


def mask_url(url: str) -> str:
    """Write an injected URL so that it may be logged.

    Shown are scheme, host, port, deployment id and the storage name; masked are the stop key or security number, user
    information and all other query values. A path of an unknown form is masked as a whole.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return MASK
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    match = _CREDENTIAL_PATH.match(parts.path)
    path = f"{match['open']}{MASK}{match['rest'] or ''}" if match else f"/{MASK}" if parts.path.strip("/") else ""
    query = "&".join(
        f"{key}={quote(value) if key in _PLAIN_QUERY else MASK}"
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return f"{parts.scheme}://{host}{port}{path}" + (f"?{query}" if query else "")


def clean(text: str, *secrets: str | None) -> str:
    """Replace every secret in a message from outside, and make it one short printable line.

    Args:
        text: the message, as it came.
        secrets: values that must not be shown, also in their URL-encoded forms. A short one (a stop key may have three
            digits) is replaced only where it stands alone, so that it does not tear other numbers apart.
    """
    forms = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""), quote_plus(secret))}
    for form in sorted(forms, key=len, reverse=True):
        pattern = re.escape(form) if len(form) > 8 else rf"(?<![0-9A-Za-z]){re.escape(form)}(?![0-9A-Za-z])"
        text = re.sub(pattern, MASK, text)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _MESSAGE_LIMIT else line[: _MESSAGE_LIMIT - 1] + "…"


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
