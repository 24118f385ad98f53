"""What libraries print while they load is hidden, and only then."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from finetuner_core.catalogue.quiet import quiet_libraries, verbose


def make_noise(word: str) -> None:
    print(f"{word} stdout")
    print(f"{word} stderr", file=sys.stderr)
    warnings.warn(f"{word} warning", UserWarning, stacklevel=2)
    logging.getLogger("some.library").warning("%s log", word)


def shown(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err + caplog.text


def test_it_hides_what_is_printed_inside_and_nothing_afterwards(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FINETUNER_VERBOSE", raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_libraries():
            make_noise("inside")
        make_noise("after")
    assert [str(warning.message) for warning in caught] == ["after warning"]
    text = shown(capsys, caplog)
    assert "inside" not in text
    assert all(f"after {what}" in text for what in ("stdout", "stderr", "log"))


def test_errors_are_logged_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    with quiet_libraries():
        logging.getLogger("some.library").error("this matters")
    assert "this matters" in caplog.text


def test_it_ends_with_an_exception(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError), quiet_libraries():
        raise KeyError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_noise("after")
    text = shown(capsys, caplog)
    assert all(f"after {what}" in text for what in ("stdout", "stderr", "log"))


def test_what_was_switched_off_before_stays_so(caplog: pytest.LogCaptureFixture) -> None:
    logging.disable(logging.CRITICAL)
    try:
        with quiet_libraries():
            logging.getLogger("some.library").error("inside")
        logging.getLogger("some.library").error("after")
    finally:
        logging.disable(logging.NOTSET)
    assert not caplog.text


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_verbose_shows_it(
    value: str,
    wanted: bool,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FINETUNER_VERBOSE", value)
    assert verbose() is wanted
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_libraries():
            make_noise("inside")
    assert bool(caught) is wanted
    text = shown(capsys, caplog)
    assert all((f"inside {what}" in text) is wanted for what in ("stdout", "stderr", "log"))


def test_a_handler_that_a_library_leaves_behind_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    with quiet_libraries():
        logging.info("the module's own function gives the root logger a handler")
    assert logging.root.handlers == []
