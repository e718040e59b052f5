"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """Bad input. Its message is one line: name, rule, value received, next step. Entry points exit with code 2."""
