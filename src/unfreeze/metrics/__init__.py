"""Metrics as mergeable states, each with an interval: how good, and how sure.

A state takes batches (`update`), joins the states of other processes (`merge`) and gives its numbers once (`compute`,
`intervals`). Averages of averages never occur, because a state holds sums and counts; and its size is set by the number
of labels, not by the number of rows.

=====================  ==================================  =====================================================
state                  kept of the rows                    interval
=====================  ==================================  =====================================================
ClassificationState    counts of (true, predicted) cells   bootstrap by multinomial draws over the cells
MultiLabelState        sums a label, score histograms      streamed Poisson bootstrap
RegressionState        sums of powers                      streamed Poisson bootstrap
SpanState              sums a type of span                 streamed Poisson bootstrap
FrameState             the same, and of whole rows         streamed Poisson bootstrap
AnswerState            sums of exact match and F1          streamed Poisson bootstrap
SegmentationState      sums of pixels a class              streamed Poisson bootstrap
SpeechState            sums of wrong words and letters      streamed Poisson bootstrap
TokenState             sums over tokens                     none
TextState              sums of ROUGE                       streamed Poisson bootstrap
PairedState            joint counts of two systems         bootstrap of the difference; Student's for numbers
=====================  ==================================  =====================================================

The streamed Poisson bootstrap (Chamandy et al., "Estimating uncertainty for massive data streams", Google 2012) gives
each row a weight drawn from Poisson(1) in each of `REPLICATES` imagined repetitions, and keeps one sum a repetition.
The weight is a function of (seed, row, repetition), so it depends neither on batches nor on order nor on the process
that saw the row. Merged states must therefore have been told which rows they saw.

Every metric that is undefined is None, and the state's `reasons` says why; an interval that would be a lie (no error
seen, so that all repetitions agree) is left out, and `reasons` says so too.

Example:
    >>> import numpy as np
    >>> state = ClassificationState(["no", "yes"])
    >>> state.update(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
    >>> state.compute()["accuracy"]
    0.75
"""

from unfreeze.metrics.answers import AnswerState
from unfreeze.metrics.classification import CALIBRATION_BINS, ClassificationState
from unfreeze.metrics.frames import FrameState
from unfreeze.metrics.multilabel import MultiLabelState
from unfreeze.metrics.paired import Difference, PairedState
from unfreeze.metrics.regression import RegressionState
from unfreeze.metrics.resampling import REPLICATES
from unfreeze.metrics.segmentation import SegmentationState
from unfreeze.metrics.spans import SpanState
from unfreeze.metrics.speech import SpeechState
from unfreeze.metrics.texts import TextState
from unfreeze.metrics.tokens import TokenState

__all__ = [
    "CALIBRATION_BINS",
    "REPLICATES",
    "AnswerState",
    "ClassificationState",
    "Difference",
    "FrameState",
    "MultiLabelState",
    "PairedState",
    "RegressionState",
    "SegmentationState",
    "SpanState",
    "SpeechState",
    "TextState",
    "TokenState",
]
