"""The exceptions by which `crewjob worker` names what is not the error of a program.

A client of Celery that has imported this module catches them by class; any other gets a class of the same name.
"""


class InvalidResult(ValueError):
    """What a program returned is no JSON that every client of Celery can read."""


class ResultTooLarge(ValueError):
    """A result has more than 16 MiB."""


class CommandFailed(Exception):
    """A program ended with an exit status other than 0, and did not say why."""


class ArgumentMissing(Exception):
    """A call does not have an argument that the command line names."""


class CommandNotFound(Exception):
    """There is no program of the name that the worker was given."""


class CommandNotExecutable(Exception):
    """The worker may not execute the program."""


class DirectoryNotFound(Exception):
    """There is no directory of the name that the worker was given."""


class CommandNotStarted(Exception):
    """The program could not be started for another reason."""
