"""Recordings of robots, ROS 1 and ROS 2 bags and MCAP, read without ROS.

In goes a bag and what of it is meant, out come a `Scene` and a `Clip`, or one line that says what is missing.
"""
