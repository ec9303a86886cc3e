"""The TLS certificate of a listener. Standard library only; imported only if one is set."""

from __future__ import annotations

import os
import ssl


def server_context(certificate: str, key: str | None) -> ssl.SSLContext:
    """The context of a server for TLS 1.2 or later.

    Args:
        certificate: path of a PEM file with the certificate and the intermediate certificates.
        key: path of a PEM file with the private key; None if that is also in the first file.

    Raises:
        ValueError: they cannot be used; the message says what is accepted, and follows the name of the setting.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A dummy password: without one, OpenSSL would ask for the password of a locked key on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as problem:
        where = certificate if key is None else f"{certificate} with the key {key}"
        raise ValueError(
            "takes a PEM file with a certificate whose private key, without a password, is in it or in "
            f"AGENT_METRICS_TLS_KEY; {where} is not that ({problem.reason or problem})"
        ) from None
    except OSError as problem:
        unread = next((path for path in (certificate, key) if path and not os.access(path, os.R_OK)), certificate)
        why = os.strerror(problem.errno or 0).lower()
        raise ValueError(f"takes PEM files that can be read; {unread}: {why}") from None
    return context
