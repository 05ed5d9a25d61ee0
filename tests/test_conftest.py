"""What makes a run fail in which every test passed."""

import pytest

from tests import conftest

SKIPPED = {'test_a': 'Skipped: MariaDB is not installed', 'test_b': 'Skipped: processes do not fork there'}


@pytest.mark.parametrize(
    ('forbid', 'allowed', 'faults'),
    [
        (False, [], []),
        (True, [], ['test_a', 'test_b']),
        (True, ['(MariaDB|Redis) is not installed'], ['test_b']),
        (True, ['MariaDB', 'do not fork'], []),
        (True, ['test_'], ['test_a', 'test_b']),
    ],
)
def test_a_skip_is_a_fault_where_they_are_forbidden_unless_its_reason_is_allowed(
    monkeypatch: pytest.MonkeyPatch, forbid: bool, allowed: list[str], faults: list[str]
) -> None:
    monkeypatch.setattr(conftest, 'FREE_THREADED', False)
    monkeypatch.setattr(conftest, 'FORBID_SKIPS', forbid)
    monkeypatch.setattr(conftest, 'ALLOW_SKIPS', allowed)
    monkeypatch.setattr(conftest, 'skipped', SKIPPED)
    assert conftest.faults() == [f'skipped: {name}: {SKIPPED[name]}' for name in faults]
