"""The way to the bridge, a step at a time: name, TCP, TLS, WebSocket, token, and the bridge's clock.

Nothing of it touches a running host's own connection: whether its token is accepted, that host is asked.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from uaihost.doctor import certificates
from uaihost.doctor.model import Finding, fail, ok, skipped, warn
from uaihost.doctor.patient import Patient, readable
from uaihost.doctor.service import bridge_starts
from uaihost.doctor.way import PATIENCE, connect, no_tunnel, proxy_of
from uaihost.errors import SettingError
from uaihost.link.endpoint import Closed, NotOpened, bridge_endpoint
from uaihost.link.link import REJECTED
from uaihost.link.socket import MessageSocket
from uaihost.proxy import NotThrough, Proxies
from uaihost.wire.codec import encode
from uaihost.wire.frames import Auth, Ping

# Bytes of an HTTP answer's head.
HEAD_LIMIT = 64 << 10
# Seconds that clocks may differ: browsers and vendors' tokens bear a minute or two; a certificate that was
# made just now and a token of five minutes do not bear more.
SKEW_TOLD, SKEW_BAD = 20.0, 240.0
# What no host can be called (docs/protocol.md, section 1), so that a bridge which knows the token refuses
# this hello for its name, and no host's session ends by it.
NOBODY = "uaihost doctor"

LOCAL = "`uaihost up` starts the bridge by itself"


async def name(patient: Patient) -> Finding:
    """The bridge's name has addresses."""
    host, port, _ = patient.bridge
    if patient.alone:
        return skipped(f"no bridge is set: {LOCAL}")
    proxy = proxy_of(patient)
    if proxy is not None:
        return ok(f"the proxy {proxy} looks {host} up")
    try:
        found = await patient.blocking.call(_addresses, host, port)
    except OSError as error:
        return fail(
            f"the name {host} of the bridge has no address here: {error.strerror or error}",
            f"getent ahosts {host}   # must print an address",
            "cat /etc/resolv.conf   # the name servers that were asked; a VPN may have changed them",
            f"echo $UAI_CLOUD_URL   # is {host} the right name?",
        )
    except UnicodeError:
        return fail(f"{host!r} can be no name of a machine", "echo $UAI_CLOUD_URL")
    shown = ", ".join(dict.fromkeys(address for _, address in found))
    return ok(f"{host} is {shown}" if shown != host else host, addresses=[one for _, one in found])


def _addresses(host: str, port: int) -> list[tuple[Any, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, str(address[0])) for family, _, _, _, address in found]


async def tcp(patient: Patient) -> Finding:
    """Something listens there."""
    host, port, _ = patient.bridge
    proxy = proxy_of(patient)
    if proxy is not None and proxy.secure:
        return skipped(f"TLS with the proxy {proxy} itself is not tried a step at a time; see bridge: token")
    started = time.monotonic()
    try:
        made = await patient.blocking.call(connect, patient)
    except OSError as error:
        if proxy is not None:
            return no_tunnel(patient, proxy, error)
        return await patient.blocking.call(_no_way, patient, error)
    peer = made.getpeername()
    made.close()
    took = (time.monotonic() - started) * 1000
    via = f" through the proxy {proxy}" if proxy is not None else ""
    who = host if proxy is not None else peer[0]
    return ok(f"{who} port {port} answers in {took:.0f} ms{via}", milliseconds=round(took, 1))


def _no_way(patient: Patient, error: OSError) -> Finding:
    """Blocks where a service is asked."""
    host, port, _ = patient.bridge
    if isinstance(error, ConnectionRefusedError):
        if host in ("localhost", "127.0.0.1", "::1"):
            starts = bridge_starts(patient) or (
                "uaihost up   # a bridge and a host in one",
                "twistd -n uaibridge   # or a bridge alone",
            )
            return fail(f"nothing listens on port {port} of this machine: the bridge does not run", *starts)
        return fail(
            f"{host} refuses connections to port {port}: the bridge does not run there, or the port is wrong",
            "echo $UAI_CLOUD_URL",
            f"nc -vz {host} {port}",
        )
    return fail(
        f"{host} port {port} does not answer ({error.strerror or error}): a firewall on the way, or no "
        "network",
        f"nc -vz -w 5 {host} {port}",
        "ip route   # is there a default route?",
        "export https_proxy=http://PROXY:PORT   # if your network has one",
    )


async def tls(patient: Patient) -> Finding:
    """Its certificate is for its name, vouched for, and does not end soon."""
    host, port, secure = patient.bridge
    if not secure:
        if host in ("localhost", "127.0.0.1", "::1"):
            return ok("it is on this machine, without TLS")
        return warn(
            f"the token and all that tasks say go to {host} as plain text",
            f"export UAI_CLOUD_URL={patient.url.replace('ws://', 'wss://', 1)}",
        )
    return await patient.blocking.call(
        certificates.look, host, port, lambda: connect(patient), patient.settings.ca_file, time.time()
    )


async def websocket(patient: Patient) -> Finding:
    """What answers there opens a WebSocket at the bridge's path.

    None is opened beside a running host's: not every bridge keeps two connections apart before their `auth`.
    """
    if _connected(patient.running.status):
        return ok("the running host has it open")
    answer = await patient.blocking.call(_asked, patient, True)
    facts = {"status": answer.status}
    host, port, _ = patient.bridge
    if answer.status == 101:
        return ok(f"opens at {answer.path}", **facts)
    if answer.status is None:
        return fail(
            f"what listens on {host} port {port} speaks no HTTP: it is no bridge",
            "echo $UAI_CLOUD_URL",
            f"curl -v {_http(patient)}",
            **facts,
        )
    if answer.status in (401, 403, 407):
        why = "somebody on the way asks for a sign-in of its own (a proxy, an access gateway)"
    elif answer.status in (301, 302, 307, 308):
        why = f"it sends elsewhere ({answer.headers.get('location', 'nowhere')})"
    elif answer.status >= 500:
        why = "the server before the bridge works and the bridge behind it does not"
    else:
        why = "the path is not the bridge's, or a proxy before it takes the upgrade away"
    return fail(
        f"HTTP {answer.status} in place of a WebSocket at {answer.path}: {why}",
        "echo $UAI_CLOUD_URL   # usually wss://HOST/host",
        f"curl -v {_http(patient)}",
        **facts,
    )


async def clock(patient: Patient) -> Finding:
    """This machine's clock beside the bridge's."""
    sent = time.time()
    answer = await patient.blocking.call(_asked, patient, False)
    came = time.time()
    try:
        theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return skipped("the bridge does not say what time it has")
    # A second is the finest that HTTP tells (RFC 9110, section 5.6.7): anywhere in it is no difference.
    early, late = theirs - came, theirs + 1 - sent
    skew = 0.0 if early <= 0 <= late else (early if early > 0 else late)
    facts = {"seconds": round(skew, 1)}
    if abs(skew) < SKEW_TOLD:
        return ok("as the bridge's" if abs(skew) < 2 else f"{abs(skew):.0f} s from the bridge's", **facts)
    way = "behind" if skew > 0 else "ahead of"
    said = f"this machine's clock is {_span(abs(skew))} {way} the bridge's"
    fixes = ("sudo timedatectl set-ntp true", "timedatectl   # `System clock synchronized` must say yes")
    if abs(skew) < SKEW_BAD:
        return warn(f"{said}: sign-ins of a few minutes will be refused", *fixes, **facts)
    return fail(f"{said}: certificates and sign-ins are refused", *fixes, **facts)


async def token(patient: Patient) -> Finding:
    """The bridge lets this host in. A running host is asked; else a hello is sent that can be nobody's."""
    status = patient.running.status
    if status is not None:
        return _of_the_running(patient, status)
    if patient.alone:
        return skipped(f"no token is set: {LOCAL}, with a token of its own")
    if not patient.settings.token:
        return fail(
            "no token is set, and the bridge lets nobody in without one",
            "export UAI_HOST_TOKEN_FILE=FILE   # a file with the token, which the bridge's operator has",
        )
    asking = _Asking(patient.settings.token)
    factory = Factory.forProtocol(lambda: asking)
    factory.noisy = False
    try:
        endpoint = bridge_endpoint(
            patient.reactor,
            patient.url,
            ca_file=patient.settings.ca_file,
            proxies=Proxies(patient.environ),
        )
        await endpoint.connect(factory)
        found = await asking.done
        refused = found.facts.get("code") == REJECTED
        return attrs.evolve(found, fix=new_token(patient.environ)) if refused else found
    except NotThrough as error:
        return fail(str(error), "uaihost doctor --only proxies --only bridge-tcp")
    except SettingError as error:
        return skipped(error.message)
    except NotOpened as error:
        return fail(
            f"the host's own way to the bridge does not open: {error}",
            "uaihost doctor --only bridge-websocket",
        )
    except (ConnectError, DNSLookupError) as error:
        return skipped(f"the bridge is not reached: {error}")
    finally:
        asking.leave()


def _connected(status: Any) -> bool:
    """Whether the running host's link is up."""
    return bool(status) and (status.get("bridge") or {}).get("state") == "connected"


def _of_the_running(patient: Patient, status: Any) -> Finding:
    bridge = status.get("bridge") or {}
    state, reason = str(bridge.get("state")), str(bridge.get("reason") or "")
    if _connected(status):
        return ok("the running host is connected", state=state)
    if state == "fatal":
        return fail(
            f"the bridge refused the running host: {reason}", *new_token(patient.environ), state=state
        )
    again = bridge.get("retryAt")
    # Seconds since the epoch, as the host's clock has them.
    soon = f"; it tries again in {max(0, again - time.time()):.0f} s" if again else ""
    return fail(
        f"the running host is not connected ({state}): {reason or 'no reason known'}{soon}",
        "uaihost status",
        state=state,
    )


def new_token(environ: Mapping[str, str]) -> tuple[str, ...]:
    """How another token is given: into the file that is read already, whose owner and mode stay."""
    again = "uaihost restart   # a host that was refused does not try again by itself"
    file = environ.get("UAI_HOST_TOKEN_FILE")
    whose = "with the token that the bridge's operator gives you"
    if not file or environ.get("UAI_HOST_TOKEN"):
        return f"export UAI_HOST_TOKEN_FILE=FILE   # {whose}", again
    sudo = "" if os.access(file, os.W_OK) else "sudo "
    return f"{sudo}cp FILE {readable(Path(file))}   # FILE: {whose}", again


class _Asking(Protocol):
    """Says hello under a name that no host can have, and hears what is wrong with it.

    done: fires with what is found.
    """

    transport: Any

    def __init__(self, token: str) -> None:
        self._token = token
        self._socket: MessageSocket | None = None
        self.done: Deferred[Finding] = Deferred()

    def connectionMade(self) -> None:
        self._socket = self.transport
        self.transport.attach(self)
        for frame in (Auth(token=self._token, hostId=NOBODY), Ping(ts=0)):
            self.transport.send_message(encode(frame), False, False)

    def leave(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        value = reason.value
        code, said = (value.code, value.reason) if isinstance(value, Closed) else (None, str(value))
        self._finish(refusal(code, said))

    # ---- link.socket.Receiver

    def text(self, payload: bytes) -> None:
        # Whoever answers has let us in: a bridge that does not look at names.
        self._finish(ok("accepted"))

    def binary(self, payload: bytes) -> None:
        self._finish(ok("accepted"))

    def marked(self, payload: bytes) -> None:
        """It was read; that is no answer."""

    def closed(self, code: int | None, reason: str) -> None:
        self._finish(refusal(code, reason))

    def _finish(self, finding: Finding) -> None:
        if not self.done.called:
            self.done.callback(finding)


def refusal(code: int | None, reason: str) -> Finding:
    """What the end of that connection says: of the name, and so not of the token, or of the token."""
    if code == REJECTED and "host id" in reason:
        return ok("accepted")
    if code == REJECTED:
        said = f"the bridge refuses the token: {reason or 'no reason given'}"
        return fail(said, *new_token({}), code=code)
    return fail(
        f"the bridge closed the connection before it answered (code {code}): {reason}",
        "uaihost doctor --only bridge-token",
        code=code,
    )


@attrs.frozen
class _Answer:
    """status: None when what came is no HTTP. headers: by lower-case name."""

    status: int | None
    headers: dict[str, str]
    path: str


def _asked(patient: Patient, upgrade: bool) -> _Answer:
    """What the bridge's server answers a WebSocket's opening, or a plain request for its root. Blocks.

    The certificate was looked at before; here it is not, since even a wrong one has a clock.
    """
    host, port, secure = patient.bridge
    wanted = re.sub(r"\A\w+://[^/?#]*", "", patient.url) if upgrade else "/"
    path = wanted if wanted.startswith("/") else f"/{wanted}"
    lines = [f"GET {path} HTTP/1.1", f"Host: {host if ':' not in host else f'[{host}]'}:{port}"]
    if upgrade:
        key = base64.b64encode(os.urandom(16)).decode()
        lines += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}"]
        lines += ["Sec-WebSocket-Version: 13", "User-Agent: uaihost-doctor"]
    else:
        lines += ["Connection: close", "User-Agent: uaihost-doctor"]
    request = "\r\n".join([*lines, "", ""]).encode()
    try:
        with connect(patient) as plain:
            if secure:
                with certificates.careless().wrap_socket(plain, server_hostname=host) as made:
                    head = _head(made, request)
            else:
                head = _head(plain, request)
    except (TimeoutError, ConnectionError, ssl.SSLError):
        head = b""
    first, *fields = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    status = re.match(r"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\Z)", first)
    headers = {field.partition(":")[0].strip().lower(): field.partition(":")[2].strip() for field in fields}
    return _Answer(int(status[1]) if status else None, headers, path.partition("?")[0])


def _head(made: socket.socket, request: bytes) -> bytes:
    """What comes until an empty line, the end or the limit."""
    made.settimeout(PATIENCE)
    made.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_LIMIT:
        more = made.recv(4096)
        if not more:
            break
        head += more
    return head


def _http(patient: Patient) -> str:
    """The bridge's address for curl, as a word of a shell; without its query, which may hold a secret."""
    plain = patient.url.replace("ws", "http", 1).partition("?")[0]
    return plain if re.fullmatch(r"[A-Za-z0-9:/._\[\]-]+", plain) else f"'{plain}'"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
