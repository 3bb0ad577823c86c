"""Measurements and the data for them: the REA data set, scoring, a generated world, training of the small ST-LLM.

In go bundles, checkpoints and data sets, out come answers, figures and tables.
"""
