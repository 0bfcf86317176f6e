"""State that a forked child process renews: of its parent's threads it has one, and nobody frees the others' locks."""

import os


def in_forked_child(renew):
    """Call ``renew()`` in each child process, as it is forked. A decorator."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=renew)
    return renew
