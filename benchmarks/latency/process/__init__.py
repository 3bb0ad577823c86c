"""The process that is measured, and the one that asks it: measuring disturbs no answer.

In goes a question, out come the moments at which each stage was on the clock.
"""
