"""What quantisation costs on a user's own scenes: divergence of next tokens, and answers beside it.

In go a bundle, a reference and questions, out come a table, JSON rows and a plot.
"""
