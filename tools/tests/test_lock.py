import lock

FULL = """version = 1
requires-python = ">=3.11"

[manifest]
members = [
    "hetcal",
    "papershelf",
]

[[package]]
name = "numpy"
version = "2.4.6"
source = { registry = "https://index.example/simple" }
resolution-markers = [
    "python_full_version < '3.12'",
]
sdist = { url = "https://files.example/numpy.tar.gz", hash = "sha256:aa", size = 1 }
wheels = [
    { url = "https://files.example/numpy-1.whl", hash = "sha256:bb", size = 2 },
    { url = "https://files.example/numpy-2.whl", hash = "sha256:cc", size = 3 },
]

[[package]]
name = "hetcal"
version = "0.1.0"
source = { editable = "packages/hetcal" }
dependencies = [
    { name = "numpy" },
]

[[package]]
name = "six"
version = "1.17.0"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://files.example/six.whl", hash = "sha256:dd", size = 4 }]
"""

NEUTRAL = """version = 1
requires-python = ">=3.11"

[manifest]
members = []

[[package]]
name = "numpy"
version = "2.4.6"
source = { registry = "neutral" }
resolution-markers = [
    "python_full_version < '3.12'",
]

[[package]]
name = "hetcal"
version = "0.1.0"
source = { editable = "packages/hetcal" }
dependencies = [
    { name = "numpy" },
]

[[package]]
name = "six"
version = "1.17.0"
source = { registry = "neutral" }
"""


def test_addresses_go_and_everything_else_stays():
    assert lock.neutral(FULL) == NEUTRAL


def test_neutral_is_idempotent():
    assert lock.neutral(NEUTRAL) == NEUTRAL


def test_versions_survive():
    assert lock.versions(FULL) == lock.versions(NEUTRAL) == {("numpy", "2.4.6"), ("hetcal", "0.1.0"), ("six", "1.17.0")}


def test_the_committed_lock_is_neutral():
    committed = lock.committed()
    assert "://" not in committed
    assert lock.neutral(committed) == committed
    assert len(lock.versions(committed)) > 50
