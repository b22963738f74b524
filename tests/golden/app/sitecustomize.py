"""Gives every recording process the same host name; Python imports this module at start."""

import socket

socket.gethostname = lambda: "golden"
