import os
import socket
import subprocess
import sys

import offline
import pytest

LOOPBACK = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
names = [name for _, name in socket.if_nameindex()]
try:
    socket.create_connection(("192.0.2.1", 9), timeout=5)  # an address that RFC 5737 reserves for documents
except OSError as error:
    print(names, error.strerror)
"""


def test_a_command_has_loopback_and_no_other_address():
    command = [sys.executable, offline.__file__, sys.executable, "-c", LOOPBACK]
    done = subprocess.run(command, capture_output=True, text=True)
    if "no network namespace" in done.stderr:
        pytest.skip("this machine allows no network namespace")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['lo'] Network is unreachable\n"


def test_the_status_is_the_command_s():
    assert subprocess.run([sys.executable, offline.__file__, sys.executable, "-c", "exit(7)"]).returncode == 7
    assert subprocess.run([sys.executable, offline.__file__], stdout=subprocess.DEVNULL).returncode == 2


def test_sockets_to_other_hosts_are_refused_in_the_suite():
    # pytest-socket warns before it raises, and the suite makes an error of a warning
    with (
        pytest.raises(Warning, match=r"tried to use socket\.socket\.connect\(\) with host \"192.0.2.1\""),
        socket.socket() as caller,
    ):
        caller.connect(("192.0.2.1", 9))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
