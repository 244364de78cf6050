"""The filter of system calls for a program that works on files alone (seccomp(2), bpf(4) of old).

Owns the list of what is refused. It is a list of refusals and not of permissions: a newer git or C library
may use calls that nobody here has heard of, and must go on working.
"""

from __future__ import annotations

import errno
import struct

# linux/audit.h, asm/unistd.h: what the kernel calls the machine, and its numbers of the calls to refuse.
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SOCKETS = {"socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200)}
_OTHERS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
}
# These have one number everywhere: io_uring opens sockets without socket(2).
_EVERYWHERE = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsmount": 432,
    "pidfd_getfd": 438,
    "process_madvise": 440,
}
# Numbers of x86-64 from here on are those of its 32 bit form (x32), which would pass by the list.
_X32 = 0x40000000

# linux/filter.h, linux/seccomp.h.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000


def deny(machine: str) -> bytes:
    """The program for a `machine` as platform.machine() names it; empty for one that is not known."""
    if machine not in _AUDIT:
        return b""
    column = list(_AUDIT).index(machine)
    refused = [numbers[column] for numbers in (*_SOCKETS.values(), *_OTHERS.values())]
    refused += _EVERYWHERE.values()
    body = []
    if machine == "x86_64":
        body.append((_AT_LEAST, len(refused) + 1, 0, _X32))
    for index, number in enumerate(refused):
        body.append((_EQUAL, len(refused) - index, 0, number))
    program = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, _AUDIT[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *body,
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
