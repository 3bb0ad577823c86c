"""Files of pictures: images and video streams, as a viewer shows them.

In goes a file, out come upright RGB frames with their times, or one line that says what is wrong with it.
"""
