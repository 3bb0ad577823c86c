"""The price of every approximation on a user's own questions: which configurations of a bundle are worth having.

In go bundles and samples, out come the Pareto front of time, memory and answers, and a preset for `stllm-run`.
"""
