"""Run a command on a machine that has no network but itself: a Linux network namespace with nothing but loopback.

Programs that a test starts are cut off like the test itself. Where no namespace can be made (no Linux, no right to),
the command runs as it is and one line says so.

    python tools/offline.py uv run --offline pytest
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
SIOCSIFFLAGS, IFF_UP_LOOPBACK_RUNNING = 0x8914, 0x49  # linux/sockios.h, linux/if.h


def leave_the_network() -> bool:
    """Move this process into a namespace of its own in which loopback works; False where that is not allowed."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) != 0:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            return False
        for file, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{file}", "w", encoding="ascii") as written:
                written.write(line)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_LOOPBACK_RUNNING))
    return True


def main() -> None:
    command = sys.argv[1:]
    if not command or command[0] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if command else 2)
    if not leave_the_network():
        print("offline.py: no network namespace to be had here; the command keeps its network", file=sys.stderr)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
