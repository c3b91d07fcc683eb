"""Is a merge of two networks worth it: everything that can be measured, a verdict by stated criteria, a report."""

from .behaviour import Behaviour, measure_behaviour
from .diagnose import Diagnosis, diagnose
from .report import report_page
from .verdict import Verdict, judge
from .weights import Chance, Weights, weigh

__all__ = [
    "Behaviour",
    "Chance",
    "Diagnosis",
    "Verdict",
    "Weights",
    "diagnose",
    "judge",
    "measure_behaviour",
    "report_page",
    "weigh",
]
