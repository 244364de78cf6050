"""What a server's certificate is worth here: verified as the host's link verifies it, and described."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from uaihost.doctor.model import Finding, fail, ok, warn
from uaihost.doctor.patient import readable

Dial = Callable[[], socket.socket]

# Days before its end in which a certificate should have been renewed: renewals begin a month ahead.
SOON = 10

# verify(1), X509_V_ERR_*: not yet valid, expired, its own issuer, no issuer known, wrong name or address.
_EARLY, _EXPIRED = 9, 10
_UNKNOWN = (18, 19, 20, 21, 27)
_NAME = (62, 64)


def careless() -> ssl.SSLContext:
    """A context that verifies nothing: to look at what a server shows, never to say a secret."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def look(host: str, port: int, dial: Dial, ca_file: Path | None, now: float) -> Finding:
    """Blocks. dial: a connection to it; now: seconds since the epoch."""
    try:
        trusted = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        return fail(
            f"the authorities in {ca_file} cannot be read: {error}",
            f"openssl x509 -in {readable(ca_file or Path('/'))} -noout -subject",
        )
    try:
        with (
            dial() as plain,
            trusted.wrap_socket(plain, server_hostname=host) as made,
        ):
            shown, version = made.getpeercert(binary_form=True), made.version()
    except ssl.SSLCertVerificationError as error:
        return _refused(host, port, error, ca_file, dial, now)
    except (ssl.SSLError, OSError) as error:
        return fail(
            f"{host} port {port} does not speak TLS: {getattr(error, 'reason', None) or error}",
            f"openssl s_client -connect {host}:{port} -servername {host} </dev/null",
            f"# if it is a bridge without TLS: export UAI_CLOUD_URL=ws://{host}:{port}/host",
        )
    assert shown is not None
    certificate = x509.load_der_x509_certificate(shown)
    days = (certificate.not_valid_after_utc - datetime.fromtimestamp(now, UTC)).days
    facts = {**_facts(certificate), "tls": version, "days": days}
    if days < SOON:
        return warn(
            f"the certificate of {host} ends in {days} days and was not renewed",
            f"{_show(host, port)} -dates",
            "# the bridge's operator renews it; with certbot: sudo certbot renew",
            **facts,
        )
    return ok(f"{version}, {_who(certificate)}, {days} days left", **facts)


def _refused(
    host: str,
    port: int,
    error: ssl.SSLCertVerificationError,
    ca_file: Path | None,
    dial: Dial,
    now: float,
) -> Finding:
    certificate = _shown(host, dial)
    facts = {"verify": error.verify_code, **(_facts(certificate) if certificate is not None else {})}
    show = _show(host, port)
    who = _who(certificate) if certificate is not None else "a certificate that cannot be read"
    if error.verify_code == _EXPIRED and certificate is not None:
        return fail(
            f"the certificate of {host} ({who}) ended on {certificate.not_valid_after_utc:%Y-%m-%d}",
            "date   # is this machine's clock right? if not: sudo timedatectl set-ntp true",
            f"{show} -dates",
            "# the bridge's operator renews it; with certbot: sudo certbot renew",
            **facts,
        )
    if error.verify_code == _EARLY and certificate is not None:
        since = certificate.not_valid_before_utc
        return fail(
            f"the certificate of {host} begins on {since:%Y-%m-%d %H:%M} UTC, and it is "
            f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} here: this machine's clock is behind",
            "sudo timedatectl set-ntp true",
            "date -u",
            **facts,
        )
    if error.verify_code in _NAME:
        names = ", ".join(facts.get("names", [])) or "nobody"
        return fail(
            f"the certificate is for {names}, not for {host}",
            "echo $UAI_CLOUD_URL   # use the name that the certificate has",
            f"{show} -ext subjectAltName",
            **facts,
        )
    if error.verify_code in _UNKNOWN:
        told = "no authority that this machine trusts vouches"
        if ca_file is not None:
            told = f"none of the authorities in {ca_file} vouches"
        return fail(
            f"{told} for the certificate of {host} ({who})",
            "export UAI_CA_FILE=/path/of/the/authority.pem   # of your company or of the bridge's operator",
            f"{show} -issuer",
            **facts,
        )
    return fail(
        f"the certificate of {host} ({who}) is refused: {error.verify_message}", f"{show} -text", **facts
    )


def _shown(host: str, dial: Dial) -> x509.Certificate | None:
    """The certificate as it is, whatever it is worth."""
    try:
        with (
            dial() as plain,
            careless().wrap_socket(plain, server_hostname=host) as made,
        ):
            shown = made.getpeercert(binary_form=True)
        return None if shown is None else x509.load_der_x509_certificate(shown)
    except (OSError, ssl.SSLError, ValueError, UnsupportedAlgorithm):
        return None


def _facts(certificate: x509.Certificate) -> dict[str, Any]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(name.value) for name in found]
    except (x509.ExtensionNotFound, ValueError):
        names = []
    return {
        "issuer": certificate.issuer.rfc4514_string(),
        "names": names,
        "from": certificate.not_valid_before_utc.isoformat(),
        "until": certificate.not_valid_after_utc.isoformat(),
    }


def _who(certificate: x509.Certificate) -> str:
    return f"issued by {certificate.issuer.rfc4514_string()[:80]}"


def _show(host: str, port: int) -> str:
    return (
        f"openssl s_client -connect {host}:{port} -servername {host} </dev/null 2>/dev/null | "
        "openssl x509 -noout"
    )
