"""What a session is for a robot that goes on asking: one thread at a time, conversations, live views, saved views.

In go questions and frames as they come, out come answers that cost what has changed.
"""
