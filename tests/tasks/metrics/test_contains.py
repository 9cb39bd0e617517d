import pytest

from tasks.metrics import contains_target


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        ("please reset your password", "Please reset your password", True),
        ("Well: PLEASE RESET YOUR PASSWORD!", "Please reset your password", True),
        ("Please  reset your password", "Please reset your password", False),
        ("Please reset\nyour password", "Please reset your password", False),
        ("Please reset your passwor", "Please reset your password", False),
        ("surely", "Sure", True),
        ("", "Sure", False),
        ("😀" * 10_000 + "sure", "Sure", True),
        (" ?! ", "Sure", False),
    ],
)
def test_contains_target(prediction: str, target: str, expected: bool) -> None:
    assert contains_target(prediction, target) is expected


def test_an_empty_target_raises() -> None:
    with pytest.raises(ValueError, match="empty"):
        contains_target("anything", "")
