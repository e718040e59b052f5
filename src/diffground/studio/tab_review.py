"""Tab Review: a person's verdicts on synthetic samples and on the test images, with buttons and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from diffground.data.overlay import paint_masks
from diffground.data.review import ACCEPTED, REJECTED, look_of
from diffground.errors import UserError
from diffground.evaluation.protocol1 import quality_problem
from diffground.studio.desk import SHOWN, Card, Counts, Cursor, Desk, Filter
from diffground.studio.messages import with_plain_errors
from diffground.studio.pictures import legend_entry, note_html, picture

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
    light: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    # these also show messages, which go through the queue
    with_messages = {**light, "queue": True, "concurrency_limit": 1, "concurrency_id": "review"}

    def page(move: str) -> Callable[..., Any]:
        def show(*values: Any) -> Any:
            *chosen, at = values
            return _show(desks, chosen, at, move)

        return with_plain_errors(show)

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
        event(
            with_plain_errors(enter), [chosen_set, quality, shown], [category, group, *outputs],
            show_progress="minimal",
            show_progress_on=html, concurrency_limit=1, concurrency_id="review", api_visibility="private",
        )  # fmt: skip
    for control in (category, group, shown, quality):
        # a slider that is dragged: only its last value counts
        control.input(page("first"), [*filters, cursor], outputs, trigger_mode="always_last", **light)
    previous.click(page("previous"), [*filters, cursor], outputs, **light)
    following.click(page("next"), [*filters, cursor], outputs, **light)

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

        return with_plain_errors(judged)

    accept.click(judge(ACCEPTED), [*filters, cursor, history], [*outputs, history], **light)
    reject.click(judge(REJECTED), [*filters, cursor, history], [*outputs, history], **light)

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

    undo.click(with_plain_errors(undone), [*filters, cursor, history], [*outputs, history], **with_messages)

    def dropped(*values: Any) -> Any:
        *chosen, at = values
        num = desks[chosen[0]].drop_foreign()
        gr.Info(f"{num} verdicts were removed")
        return _show(desks, chosen, at, "stay" if at else "first")

    drop.click(with_plain_errors(dropped), [*filters, cursor], outputs, **with_messages)


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
        return note_html("No sample fits these filters."), _progress(counts), None, drop
    return _picture(card), _text(card, counts, with_oracle=desk.index.shard_set.oracle is not None), _seen(card), drop


def _seen(card: Card) -> list[Any]:
    """What a page remembers of the sample that it shows: its cursor, and what tells it from another one."""
    return [*card.cursor, card.sample.key, look_of(card.sample)]


def _cursor(seen: list[Any] | None) -> Cursor | None:
    return None if seen is None else (seen[0], seen[1])


def _nothing(reason: str) -> tuple[Any, ...]:
    return note_html(reason), "", None, gr.Button(visible=False)


def _picture(card: Card) -> str:
    image, masks = card.sample.image(), card.sample.masks()
    drawn = np.stack([masks.get(name, np.zeros(image.shape[:2], dtype=bool)) for name in card.sample.categories])
    painted = paint_masks(image, drawn)
    plain = picture(image, alt=f"{card.sample.key}: {card.sample.prompt}")
    with_masks = picture(painted, alt=f"the same with the masks of {', '.join(masks) or 'nothing'}")
    return f'<div class="dg-pair">{plain}{with_masks}</div>'


def _text(card: Card, counts: Counts, *, with_oracle: bool) -> str:
    masks = card.sample.masks()
    legend = " ".join(
        legend_entry(name, i, text=f"{name} {masks[name].mean():.1%}" if name in masks else f"{name}: not found")
        for i, name in enumerate(card.sample.categories)
    )
    verdict = card.entry.verdict if card.entry else "not reviewed"
    lines = [
        f"<b>{escape(card.sample.key)}</b> <span class='dg-verdict dg-{verdict.replace(' ', '-')}'>{verdict}</span>",
        escape(card.sample.prompt),
        legend,
        f"quality {card.quality:.2f}, group {escape(card.group or 'none')}",
    ]
    if card.problem:
        lines.append(f"<b>Look again:</b> it {escape(card.problem)}.")
    if with_oracle:
        problem = quality_problem(masks, card.sample.categories)
        lines.append(f"automatic check: {'passes' if problem is None else problem.replace('_', ' ')}")
    place = (
        f"sample {card.place:,} of {card.num:,} of this filter" if card.place else f"{card.num:,} left in this filter"
    )
    text = "".join(f"<p>{line}</p>" for line in [*lines, place])
    return f'<div class="dg-card">{text}</div>{_progress(counts)}'


def _progress(counts: Counts) -> str:
    done = counts.accepted + counts.rejected
    share = done / counts.num if counts.num else 0.0
    text = f"{done:,} of {counts.num:,} reviewed: {counts.accepted:,} accepted, {counts.rejected:,} rejected"
    gone = f"; {counts.foreign:,} verdicts are on samples that are gone" if counts.foreign else ""
    bar = f'<progress value="{share:.4f}" max="1" aria-label="share of samples reviewed"></progress>'
    return f'<div class="dg-card" id="review-progress"><p>{text}{gone}</p>{bar}</div>'
