"""Runs as people read them: tables for a terminal and for Markdown, and a page that stands alone.

In go results of `stllm-bench latency`, out come text, JSON and HTML; what a run was made of stands beside its figures.
"""
