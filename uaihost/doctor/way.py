"""A byte stream to the bridge as the host has one, also through a proxy; for checks that block."""

from __future__ import annotations

import http.client
import re
import socket

from uaihost.doctor.model import Finding, fail
from uaihost.doctor.patient import Patient
from uaihost.errors import SettingError
from uaihost.proxy import Proxies, Proxy

# Seconds for one step; a SYN that was lost twice is answered within 4 (RFC 6298).
PATIENCE = 8.0


def proxy_of(patient: Patient) -> Proxy | None:
    """The proxy on the way to the bridge; one that is none counts for nothing here (host.proxies tells)."""
    try:
        return Proxies(patient.environ).towards(*patient.bridge)
    except SettingError:
        return None


def connect(patient: Patient) -> socket.socket:
    """Open one, without TLS of the bridge's. OSError says why there is none."""
    host, port, _ = patient.bridge
    proxy = proxy_of(patient)
    if proxy is None:
        return socket.create_connection((host, port), PATIENCE)
    way = http.client.HTTPConnection(proxy.host, proxy.port, timeout=PATIENCE)
    shown = {} if proxy.authorization is None else {"Proxy-Authorization": proxy.authorization}
    way.set_tunnel(host, port, shown)
    way.connect()
    made: socket.socket = way.sock
    return made


def no_tunnel(patient: Patient, proxy: Proxy, error: OSError) -> Finding:
    """Why the proxy led nowhere, and what to type."""
    host, port, secure = patient.bridge
    url = f"{'https' if secure else 'http'}://{host}:{port}/"
    signed = "USER:PASSWORD@" if re.search(r"\b40[17]\b", str(error)) else ""
    return fail(
        f"the proxy {proxy} of {proxy.variable} opens no way to {host} port {port}: {error}",
        f"export {proxy.variable}=http://{signed}{proxy}   # user and password as your network's owner says",
        f"export no_proxy={host}   # if {host} is reached without the proxy",
        f"curl -v -p -x {proxy} {url}",
    )
