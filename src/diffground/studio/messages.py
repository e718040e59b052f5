"""Errors of a request as a user reads them in the page."""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import gradio as gr

from diffground.entry_point import is_full_disk, is_out_of_memory
from diffground.errors import UserError


def with_plain_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler of an event, or a generator of its results, whose exceptions become one line in the page."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from handler(*args, **kwargs)
            except Exception as error:
                raise _plain(error) from None

        return generate

    @functools.wraps(handler)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise _plain(error) from None

    return call


def _plain(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, UserError):
        line = str(error)
    elif is_out_of_memory(error):
        line = "out of memory; ask for fewer or smaller images, or close other programs"
    elif is_full_disk(error):
        line = "no space left on the disk; free some and try again"
    else:
        traceback.print_exception(error, file=sys.stderr)
        line = f"an error of the program ({type(error).__name__}); the terminal of the Studio shows where"
    # the page shows messages as HTML
    return gr.Error(escape(line), print_exception=False, duration=15, title="This did not work")
