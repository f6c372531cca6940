"""The claims that do not time anything hold."""

import pytest
from fastlp_rank import reproduce


def test_quick_requests_and_exactness_hold() -> None:
    pytest.importorskip("highspy", reason="optional extra reproduce not installed")
    rows = [*reproduce._exactness(), *reproduce._requests(full=False)]
    assert len(rows) == 7
    assert [row.statement for row in rows if not row.holds] == []
