"""HTTPS for clients with a compiled-in address: a local authority, and a certificate for the platform's own name.

The authority is created once and kept, so that it has to be trusted only once; certificates are created at every start.
It may sign only for the names below (RFC 5280, 4.2.1.10), so that a stolen key cannot be used for other names with
software that checks this; other software (Mbed TLS, used by Godot) ignores the limit.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from agent.errors import how_to_install

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

NAME = "api.edgegap.com"
"""What clients call."""
NAMES = (NAME, "localhost")
ADDRESSES = ("127.0.0.1", "::1")
AUTHORITY_DAYS, CERTIFICATE_DAYS = 365, 90


@dataclass(frozen=True)
class Tls:
    """A certificate to serve with, and the authority that clients have to trust.

    Attributes:
        context: for the server.
        authority_file: the authority's certificate, as PEM.
    """

    context: ssl.SSLContext
    authority_file: str


def default_directory() -> str:
    """Where the authority is kept unless told otherwise (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "arbitrium-agent", "emulator")


def prepare(directory: str) -> Tls:
    """Read or make the authority, and make a certificate.

    Args:
        directory: of the authority; made, and readable by its owner only, where it is not there.

    Raises:
        ValueError: cryptography is missing, or the directory cannot be used.
    """
    try:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra, and heavy
    except ModuleNotFoundError:
        raise ValueError(f"cannot serve HTTPS: cryptography is not installed; {how_to_install('tls')}") from None
    try:
        authority, key = _authority(directory)
        certificate, own_key = _certificate(authority, key)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot use the authority in {directory}: {error}; remove it to make a new one") from None
    pem = own_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # The ssl module reads certificates from files only.
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return Tls(context, os.path.join(directory, "authority.pem"))


def _authority(directory: str) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    """The authority and its key; a new one where there is none, or it has run out."""
    from cryptography import x509  # noqa: PLC0415 - see `prepare`
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    os.makedirs(directory, mode=0o700, exist_ok=True)
    key_file, file = (os.path.join(directory, name) for name in ("authority.key", "authority.pem"))
    if os.path.exists(key_file) and os.path.exists(file):
        with open(key_file, "rb") as opened:
            key = serialization.load_pem_private_key(opened.read(), None)
        with open(file, "rb") as opened:
            certificate = x509.load_pem_x509_certificate(opened.read())
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("its key does not fit it")
        if certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=1):
            return certificate, key
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "arbitrium-agent emulator, this machine only")])
    usage = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=True,
        **dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False),
        **dict.fromkeys(("encipher_only", "decipher_only"), False),
    )
    limits = [
        *(x509.DNSName(each) for each in NAMES),
        *(x509.IPAddress(ipaddress.ip_network(each)) for each in ADDRESSES),
    ]
    certificate = (
        _builder(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        # Not critical: Mbed TLS refuses critical extensions that it does not know.
        .add_extension(x509.NameConstraints(limits, None), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, _sha256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path, content, mode in (
        (key_file, secret, 0o600),
        (file, certificate.public_bytes(serialization.Encoding.PEM), 0o644),
    ):
        with open(os.open(f"{path}.part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as opened:
            opened.write(content)
        os.replace(f"{path}.part", path)
    return certificate, key


def _certificate(
    authority: x509.Certificate, key: EllipticCurvePrivateKey
) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    """A certificate of the server, and its key, which is never written down."""
    from cryptography import x509  # noqa: PLC0415 - see `prepare`
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

    own = ec.generate_private_key(ec.SECP256R1())
    names = [
        *(x509.DNSName(each) for each in NAMES),
        *(x509.IPAddress(ipaddress.ip_address(each)) for each in ADDRESSES),
    ]
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    certificate = (
        _builder(subject, authority.subject, own, CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, _sha256())
    )
    return certificate, own


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    from cryptography import x509  # noqa: PLC0415 - see `prepare`

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _sha256() -> hashes.SHA256:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - see `prepare`

    return hashes.SHA256()
