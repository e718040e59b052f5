"""How every command ends: 0, or one line on stderr and exit code 2."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from diffground.errors import UserError

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and sqlite report a full disk in words of their own, without an errno
_FULL_DISK_WORDS = ("no space left on device", "file too large", "disk is full", "disk quota exceeded")


def run_entry_point(action: Callable[[], None], *, resume_with: str) -> int:
    """Run `action` and return the exit code: 0, 2 for what the user can mend, 130 after Ctrl-C.

    `resume_with` is the command that goes on where this one stopped. Any other exception is a bug and passes through.
    """
    try:
        action()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; `{resume_with}` goes on from here, what is complete is kept", file=sys.stderr)
        return 130
    except Exception as error:
        if not is_full_disk(error):
            raise
        reason = " ".join(str(error).split())[:300]
        print(f"error: no space left to write: {reason}; free some, then run `{resume_with}`", file=sys.stderr)
        return 2
    return 0


def is_full_disk(error: BaseException) -> bool:
    """Whether `error` says that the disk, the quota or the allowed file size is used up."""
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return True
    message = str(error).lower()
    return any(words in message for words in _FULL_DISK_WORDS)
