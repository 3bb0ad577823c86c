"""Runs as people read them: against each other, as tables for a terminal and for Markdown, as a page that stands alone.

In go results of `stllm-bench latency`, out come verdicts, text, JSON and HTML, with what a run was made of.
"""
