"""Memory: what the kernel counts, what a question will need, what its stages took.

In go sizes and stages, out come bytes, or a refusal that says what would fit.
"""
