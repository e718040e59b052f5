"""Components whose choices change while a user goes on."""

from __future__ import annotations

from typing import Any

import gradio as gr


class Words(gr.CheckboxGroup):
    """Takes a choice that was offered a moment ago too: the handler says what is wrong with it, in plain words."""

    is_template = True  # Gradio's word for a class that the page shows as its base class

    def preprocess(self, payload: Any) -> list[str]:
        return [str(word) for word in payload or ()]
