"""What the words of a verdict mean, a sentence each: for the log, the command line and the report alike."""

from __future__ import annotations

import re

_BETTER = {
    "BETTER THAN": "the score is below that of the best answer without a model, with its whole interval if it has one",
    "WORSE THAN": "the score is above that of the best answer without a model, with its whole interval if it has one",
    "NO DIFFERENCE FROM": "the interval of the difference to the best answer without a model includes zero",
    "floor": "the score of one half of the held-out cells against the other, as good as a perfect prediction of so few",
    "floors at equal numbers of cells": "the score over the floor, both of as many cells: 1 would be perfect",
    "w1": "the mean distance that cells have to be moved to turn the predicted population into the observed one",
    "w2": "the same as w1 with squared distances, which weighs far cells more, and then the root",
    "mmd": "how far two populations are apart when each is blurred by Gaussians of several widths",
    "energy": "how much farther cells of two populations are from each other than cells of the same one",
    "composition": "half the sum of the differences between predicted and observed shares of the labels",
    "coverage of 95 %": "the share of observed coordinates inside the predicted bands; less means overconfident",
}
_BY_TIMES = {
    "interpolation": "the held-out time lies between others",
    "forecast": "the held-out time lies after all others",
    "previous": "a copy of the cells of the time before",
    "next": "a copy of the cells of the time after",
    "pooled": "the cells of the times before and after, mixed by the fraction of time that has passed",
    "ot_midpoint": "cells of the times before and after, paired by optimal transport, and the points between the pairs",
    "spline": "curves through cells of all other times, paired by optimal transport, read off at the held-out one",
    "relaxed_midpoint": "as ot_midpoint, by a pairing in which cells may multiply and die",
    "growth SUPPORTED": "with growth the forecast is better than with cells conserved, beyond the interval",
    "growth NOT SUPPORTED": "a forecast in which cells are conserved is as good within the interval, or better",
    "95 %": "the interval says what other cells of the same samples would change, not other animals or batches",
}
_BY_GROUPS = {
    "left-out groups": "each sample is predicted by a fit to the other samples",
    "previous": "the cells that the prediction starts from, left where they are",
    "others": "the cells of the other samples at the same time",
    "shifted": "the cells that the prediction starts from, moved as the mean of the other samples moves",
    "95 %": "the interval says what other samples would change, as far as these can tell",
}

#: Words and what they mean, for the verdicts of each verb; ``groups`` is ``evaluate`` with samples left out.
WORDS = {
    "evaluate": _BETTER | _BY_TIMES,
    "groups": _BETTER | _BY_GROUPS,
    "diagnose": {
        "gradient flow": "cells move downhill at a speed that the slope sets, without any momentum",
        "inertial": "cells keep the speed that they have and change it slowly, as in Newton's mechanics",
        "inertia": "the share of the inertial term in the equation of motion, from 0 (gradient flow) to 1 (mechanics)",
        "friction": "the rate at which a cell loses its speed",
        "straight lines": "cells are led from one time to the next at constant speed",
        "LOWER": "predictions of held-out times are better with the velocities than without",
        "RAISE": "predictions of held-out times are worse with the velocities than without",
        "growth": "the part of a change of shares that comes from cells with the label multiplying faster or slower",
    },
    "compare": {
        "DIFFERENT": "some adjusted p-value is below the level of the test, so chance alone is an unlikely reason",
        "NO DIFFERENCE FOUND": "no adjusted p-value is below the level of the test, which does not prove equality",
        "CANNOT TELL": "with so few samples no p-value could be below the level of the test, whatever the difference",
        "NO P-VALUE": "the samples cannot be exchanged between the conditions, so nothing can be tested",
        "CONFOUNDED": "something else changes with the condition, and the data cannot tell which of the two acts",
        "adjusted p": "the p-value after all times and statistics that were tested are counted",
        "distance": "how much farther samples of different conditions are from each other than samples of one (W1)",
    },
    "plan": {
        "evenly spaced": "each time in the middle of the longest gap that is left",
        "disagreement": "how far plausible courses through redrawn cells are apart at a time",
        "sliced W2": "the distance between populations, averaged over projections to lines",
    },
    "drivers": {
        "drivers": "genes that the dynamics turn towards the fate before cells get there, more than chance would",
        "false discovery rate": "the expected share of wrong names among those that are called",
    },
    "clones": {
        "sisters": "cells of the same clone that were observed later",
        "itself": "the answer that a cell stays where it is",
        "transport": "the answer of exact optimal transport to the later cells",
        "majority": "the answer that every cell gets the most frequent label",
        "regression": "a regression that learned from other clones, and so has seen answers",
    },
}


def explain(verb: str, verdict: str) -> list[str]:
    """A sentence for each word of the glossary that the verdict of a verb has; longer words go before their parts."""
    words, there = WORDS[verb], set()
    for word in sorted(words, key=len, reverse=True):
        verdict, n = re.subn(rf"(?<!\w){re.escape(word)}(?!\w)", "", verdict)
        if n:
            there.add(word)
    return [f"{word}: {meaning}" for word, meaning in words.items() if word in there]


def in_lines(verb: str, verdict: str) -> str:
    """The verdict, and below it, indented, what its words mean."""
    return "\n  ".join([verdict, *explain(verb, verdict)])
