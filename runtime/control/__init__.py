"""What is told of work while it runs, and how it is ended early.

In go listeners, deadlines and calls of `cancel`; out come events, and `Cancelled` wherever the work is.
"""
