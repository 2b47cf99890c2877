"""What users set for the package as a whole."""

from __future__ import annotations

import logging

from wlm._logging import HINT, get_level, set_level

#: Names of the levels of verbosity, as scanpy's, and the levels of logging that they stand for.
LEVELS = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "hint": HINT,
    "debug": logging.DEBUG,
}


class Settings:
    """Settings of the package, ``wlm.settings``."""

    @property
    def verbosity(self) -> int:
        """How much wlm says, as scanpy counts: 0 errors, 1 warnings too, 2 information (default), 3 hints, 4 all.

        Hints say what a number means and what to run next. Set it to a number or a name: ``"error"``, ``"warning"``,
        ``"info"``, ``"hint"``, ``"debug"``. It is the level of the logger ``wlm``: what is set there by ``logging``
        holds here, and the other way round. Progress bars are shown, unless a call says otherwise, from 2 on.

        Raises
        ------
        ValueError, TypeError
            If it is set to anything else; nothing changes then.

        Examples
        --------
        >>> import wlm
        >>> wlm.settings.verbosity = "warning"
        >>> wlm.settings.verbosity
        1
        >>> wlm.settings.verbosity = 2
        """
        level = get_level()
        return sum(level <= own for own in list(LEVELS.values())[1:])

    @verbosity.setter
    def verbosity(self, value: int | str) -> None:
        names = list(LEVELS)
        if isinstance(value, str):
            if value.lower() not in LEVELS:
                raise ValueError(
                    f"verbosity must be one of {names} or a number from 0 to {len(names) - 1}, found {value!r}"
                )
            set_level(LEVELS[value.lower()])
            return
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"verbosity must be a number from 0 to {len(names) - 1} or one of {names}, found {value!r}")
        if not 0 <= int(value) < len(names):
            raise ValueError(
                f"verbosity must be one of {names} or a number from 0 to {len(names) - 1}, found {value!r}"
            )
        set_level(LEVELS[names[int(value)]])

    def __repr__(self) -> str:
        return f"wlm.settings(verbosity={self.verbosity})"


settings = Settings()
