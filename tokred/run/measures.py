"""What can be measured in a cell, by name: values per clip, so that parts of a data set join and clips pair up."""

from __future__ import annotations

from tokred.measure.gradnorm import retention
from tokred.measure.sources import carried
from tokred.measure.trajectory import trajectory
from tokred.run.cell import PREDICT
from tokred.run.evaluate import Measure, answers

MEASURES: dict[str, Measure] = {
    PREDICT: answers,
    "trajectory": trajectory,
    "gradnorm": retention,
    "carried": carried,
}
