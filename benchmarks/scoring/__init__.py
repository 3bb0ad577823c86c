"""How good answers are: parsers of directions and distances, metrics, baselines, judges.

In go answers with their truth, out come shares that are right, with intervals, by type of question.
"""
