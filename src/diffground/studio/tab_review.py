"""Tab Review: a person's verdicts on synthetic samples and on the test images, with buttons and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import gradio as gr

from diffground.data.overlay import paint_masks
from diffground.data.review import ACCEPTED, REJECTED, look_of
from diffground.errors import UserError
from diffground.evaluation.protocol1 import quality_problem
from diffground.studio.desk import SHOWN, Card, Cursor, Desk, Filter
from diffground.studio.events import REVIEW, at_once, queued
from diffground.studio.html import legend, masks_of, note_html, part

_ALL = "all"
_MAX_UNDO = 200
_KEYS = (
    "<p class='dg-keys'>Keys: <kbd>A</kbd> accept, <kbd>R</kbd> reject, <kbd>U</kbd> undo, "
    "<kbd>←</kbd> <kbd>→</kbd> page.</p>"
)


def build_review(desks: Mapping[str, Desk], tab: gr.Tab) -> None:
    """The tab's components and events, in the present gr.Tab. desks: title of the set -> its desk."""
    titles = list(desks)
    cursor = gr.State(None)
    history = gr.State([])
    with gr.Row():
        chosen_set = gr.Dropdown(titles, value=titles[0], label="Samples", elem_id="review-set", min_width=150)
        category = gr.Dropdown([_ALL], value=_ALL, label="Category", elem_id="review-category", min_width=120)
        group = gr.Dropdown([_ALL], value=_ALL, label="Group", elem_id="review-group", min_width=120)
        shown = gr.Dropdown(list(SHOWN), value=SHOWN[0], label="Show", elem_id="review-shown", min_width=120)
        quality = gr.Slider(0.0, 1.0, 1.0, step=0.01, label="Quality at most", elem_id="review-quality", min_width=150)
    with gr.Row():
        with gr.Column(scale=3, min_width=360):
            html = gr.HTML(note_html("Loading …"), elem_id="review-picture", elem_classes="dg-pictures")
        with gr.Column(scale=2, min_width=320):
            info = gr.HTML("", elem_id="review-info", padding=False)
            with gr.Row():
                accept = gr.Button("Accept", variant="primary", elem_id="review-accept", min_width=90)
                reject = gr.Button("Reject", elem_id="review-reject", min_width=90)
                undo = gr.Button("Undo", elem_id="review-undo", min_width=90)
            with gr.Row():
                previous = gr.Button("← Previous", elem_id="review-previous", min_width=90)
                following = gr.Button("Next →", elem_id="review-next", min_width=90)
            gr.HTML(_KEYS, padding=False)
            drop = gr.Button(
                "Remove verdicts on samples that are gone", visible=False, elem_id="review-drop", size="sm"
            )
    filters = [chosen_set, category, group, quality, shown]
    outputs = [html, info, cursor, drop]

    def page(move: str) -> Callable[..., Any]:
        def show(*values: Any) -> Any:
            *chosen, at = values
            return _show(desks, chosen, at, move)

        return show

    def enter(title: str, *values: Any) -> Any:
        """Another set: its categories and groups, and its first sample."""
        try:
            categories, groups = desks[title].choices()
        except UserError as error:
            one = gr.Dropdown(choices=[_ALL], value=_ALL)
            return one, one, *_nothing(str(error))
        updates = gr.Dropdown(choices=[_ALL, *categories], value=_ALL), gr.Dropdown(choices=[_ALL, *groups], value=_ALL)
        return *updates, *_show(desks, [title, _ALL, _ALL, *values], None, "first")

    for event in (tab.select, chosen_set.input):
        inputs = [chosen_set, quality, shown]
        options = {"show_progress": "minimal", "show_progress_on": html}
        queued(event, enter, inputs, [category, group, *outputs], queue=REVIEW, **options)
    for control in (category, group, shown, quality):
        # a slider that is dragged: only its last value counts
        at_once(control.input, page("first"), [*filters, cursor], outputs, trigger_mode="always_last")
    # "multiple": by default Gradio ignores a key between the moment that shows the next sample and the end of the event
    at_once(previous.click, page("previous"), [*filters, cursor], outputs, trigger_mode="multiple")
    at_once(following.click, page("next"), [*filters, cursor], outputs, trigger_mode="multiple")

    def judge(verdict: str) -> Callable[..., Any]:
        def judged(*values: Any) -> Any:
            *chosen, at, past = values
            desk = desks[chosen[0]]
            card = desk.card(_filter(chosen), _cursor(at), move="stay") if at else None
            if card is None:
                raise UserError("there is no sample to judge; choose another filter")
            if _seen(card) != list(at):
                raise UserError("the samples have changed since this one was shown; look at it again")
            change = desk.verdicts.judge(card.sample, verdict)
            past = [*past, (chosen[0], at, change)][-_MAX_UNDO:]
            return *_show(desks, chosen, at, "next"), past

        return judged

    for button, verdict in ((accept, ACCEPTED), (reject, REJECTED)):
        options = {"trigger_mode": "multiple"}
        at_once(button.click, judge(verdict), [*filters, cursor, history], [*outputs, history], **options)

    def undone(*values: Any) -> Any:
        *chosen, _, past = values
        mine = [i for i, (title, _, _) in enumerate(past) if title == chosen[0]]
        if not mine:
            raise UserError(f"nothing to undo since this page was opened; choose Show '{REJECTED}' to change a verdict")
        _, at, change = past[mine[-1]]
        left = [*past[: mine[-1]], *past[mine[-1] + 1 :]]
        if not desks[chosen[0]].verdicts.undo(change):
            gr.Warning(f"{escape(change.key)} has another verdict by now, which was kept")
        return *_show(desks, chosen, at, "stay"), left

    # undo and drop also show messages, which go through the queue
    hidden = {"show_progress": "hidden"}
    queued(undo.click, undone, [*filters, cursor, history], [*outputs, history], queue=REVIEW, **hidden)

    def dropped(*values: Any) -> Any:
        *chosen, at = values
        num = desks[chosen[0]].drop_foreign()
        gr.Info(f"{num} verdicts were removed")
        return _show(desks, chosen, at, "stay" if at else "first")

    queued(drop.click, dropped, [*filters, cursor], outputs, queue=REVIEW, **hidden)


def _filter(values: list[Any]) -> Filter:
    _, category, group, quality, shown = values
    return Filter(None if category == _ALL else category, None if group == _ALL else group, float(quality), shown)


def _show(desks: Mapping[str, Desk], values: list[Any], at: list[Any] | None, move: Any) -> tuple[Any, ...]:
    """Values of the outputs: picture, text, cursor, and the button for verdicts on samples that are gone."""
    desk = desks[values[0]]
    card = desk.card(_filter(values), _cursor(at), move=move)
    counts = desk.counts()
    drop = gr.Button(visible=counts.foreign > 0)
    if card is None:
        return note_html("No sample fits these filters."), part("review_progress", counts=counts), None, drop
    sample, check = card.sample, None
    found, masks = sample.masks(), masks_of(sample)
    if desk.index.shard_set.oracle is not None:
        check = (quality_problem(found, sample.categories) or "passes").replace("_", " ")
    pictures = part("review_pair", card=card, painted=paint_masks(sample.image(), masks), found=found)
    text = part("review_card", card=card, entries=legend(sample.categories, masks), check=check)
    return pictures, text + part("review_progress", counts=counts), _seen(card), drop


def _seen(card: Card) -> list[Any]:
    """What a page remembers of the sample that it shows: its cursor, and what tells it from another one."""
    return [*card.cursor, card.sample.key, look_of(card.sample)]


def _cursor(seen: list[Any] | None) -> Cursor | None:
    return None if seen is None else (seen[0], seen[1])


def _nothing(reason: str) -> tuple[Any, ...]:
    return note_html(reason), "", None, gr.Button(visible=False)
