"""How much the package says: one setting, which is the level of its logger."""

import logging
import threading

import pytest

import wlm
from wlm._logging import HINT, hint, logger, quiet


@pytest.fixture(autouse=True)
def restored():
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.parametrize(
    ("value", "number", "level"),
    [
        (0, 0, logging.ERROR),
        ("error", 0, logging.ERROR),
        (1, 1, logging.WARNING),
        ("Warning", 1, logging.WARNING),
        (2, 2, logging.INFO),
        ("info", 2, logging.INFO),
        (3, 3, HINT),
        ("hint", 3, HINT),
        (4, 4, logging.DEBUG),
        ("debug", 4, logging.DEBUG),
    ],
)
def test_verbosity_is_the_level_of_the_logger(value, number, level):
    wlm.settings.verbosity = value
    assert wlm.settings.verbosity == number and logger.level == level
    assert repr(wlm.settings) == f"wlm.settings(verbosity={number})"


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (5, ValueError), ("loud", ValueError), (True, TypeError), (1.5, TypeError)]
)
def test_another_value_is_refused_and_changes_nothing(value, error):
    wlm.settings.verbosity = 1
    with pytest.raises(error, match="verbosity must be"):
        wlm.settings.verbosity = value
    assert wlm.settings.verbosity == 1


def test_what_logging_sets_holds():
    logger.setLevel(logging.CRITICAL)
    assert wlm.settings.verbosity == 0
    logger.setLevel(logging.INFO)
    assert wlm.settings.verbosity == 2


def test_it_holds_after_calls_that_are_quiet(caplog):
    with quiet():
        assert wlm.settings.verbosity == 2  # what the user chose, not what is so for the moment
        wlm.settings.verbosity = "error"
        assert logger.level >= logging.WARNING and wlm.settings.verbosity == 0
        with quiet():
            pass
    assert logger.level == logging.ERROR
    thread = threading.Thread(target=lambda: setattr(wlm.settings, "verbosity", 3))
    with quiet():
        thread.start()
        thread.join()
        assert not logger.isEnabledFor(logging.INFO)
    assert logger.level == HINT


def test_messages_by_verbosity(caplog, monkeypatch):
    monkeypatch.setattr(logger, "propagate", True)
    said = {}
    for verbosity in range(5):
        wlm.settings.verbosity = verbosity
        caplog.clear()
        logger.error("an error")
        logger.warning("a warning")
        logger.info("information")
        hint("a hint on %s", "wlm")
        said[verbosity] = [record.getMessage() for record in caplog.records]
    everything = ["an error", "a warning", "information", "a hint on wlm"]
    assert said == {0: everything[:1], 1: everything[:2], 2: everything[:3], 3: everything, 4: everything}


def test_a_fit_shows_what_was_asked_for(cells, quick, caplog, capsys, monkeypatch):
    monkeypatch.setattr(logger, "propagate", True)
    options = {**quick, "n_steps": 1}
    options.pop("show_progress")
    for verbosity, shown, hints in ((1, False, False), (2, True, False), (3, True, True)):
        wlm.settings.verbosity = verbosity
        caplog.clear()
        wlm.tl.fit(cells, "day", **options)
        assert ("wlm.tl.fit" in capsys.readouterr().err) == shown
        assert any("fitted wlm" in record.getMessage() for record in caplog.records) == shown
        assert any("next: wlm.pl.training(adata)" in record.getMessage() for record in caplog.records) == hints
