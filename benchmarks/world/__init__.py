"""A small generated world: furnished rooms, clips of a person at work, questions and answers.

In goes a seed, out comes a data set in REA's layout.
"""
