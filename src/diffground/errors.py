"""The exceptions that mean: no bug."""


class UserError(Exception):
    """Bad input. Its message is one line: name, rule, value received, next step. Entry points exit with code 2."""


class InfrastructureError(UserError):
    """The machine failed, not the input: a killed worker, no memory left. The same command may well succeed later, so
    entry points exit with code 75, EX_TEMPFAIL of sysexits.h."""
