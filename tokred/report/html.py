"""One self-contained page for one run or several."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from tokred.report import sweep_html
from tokred.report.assets import CSS, JS
from tokred.report.cards import cards
from tokred.report.definitions import definitions, differences, legend, progress, reproduce, sentence
from tokred.report.markup import e, table
from tokred.report.overview import SWIPE, overview
from tokred.report.style import Style, styles_of
from tokred.report.table import leftovers
from tokred.report.text import clean, join, plural
from tokred.report.view import Run


def page(runs: Sequence[Mapping[str, Any]], title: str | None = None) -> str:
    """Return the report as one HTML document that needs no other file.

    Args:
        runs: each as read from a results.json or sweep.json; title: of the page, the run's own where there is one run.

    Raises:
        ValueError: no run at all, or one that this version cannot read.
    """
    if not runs:
        raise ValueError("a report needs at least one run, got none")
    views = [None if r.get("kind") == "sweep" else Run(r) for r in runs]
    compared = [run for run in views if run is not None]
    sweeps = [r for r, run in zip(runs, views, strict=True) if run is None]
    # One table of styles for all runs: a method looks the same in each of them.
    rows = [*(row for run in compared for row in run.rows), *(row for found in sweeps for row in found["rows"])]
    styles = styles_of(row["method"] for row in rows if row.get("method"))
    several = len(runs) > 1
    titles = [clean(r["title"]) if run is None else run.title for r, run in zip(runs, views, strict=True)]
    kinds = f"{len(runs)} {'runs' if sweeps else 'comparisons'} of token reducers"
    heading = clean(title or (kinds if several else titles[0]))
    body = [_overview(runs, views, titles, heading)] if several else []
    for i, (found, run, name) in enumerate(zip(runs, views, titles, strict=True), 1):
        own = f"{i}. {name}" if several else heading
        body.append(
            sweep_html.section(found, f"r{i}", own, styles) if run is None else _section(run, f"r{i}", styles, own)
        )
    body.append(_terms(compared, sweeps))
    script = base64.b64encode(hashlib.sha256(JS.encode()).digest()).decode()
    # File names come from outside. They are escaped, and should one slip through, this forbids it to do anything.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{e(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{e(heading)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + f"\n</main>\n<script>{JS}</script>\n</body>\n</html>\n"
    )


def _overview(
    runs: Sequence[Mapping[str, Any]], views: Sequence[Run | None], titles: Sequence[str], heading: str
) -> str:
    rows = []
    for i, (found, run, title) in enumerate(zip(runs, views, titles, strict=True), 1):
        text = sweep_html.lead(found) if run is None else _state(run)
        rows.append(f'<li><a href="#r{i}">{i}. {e(title)}</a><br><span class="soft">{e(text)}</span></li>')
    differ = differences([run for run in views if run is not None])
    warning = (
        f'<p class="alert">These runs differ in {e(join(differ))}. Numbers of different runs are comparable only where '
        "nothing but the method differs.</p>"
        if differ
        else ""
    )
    named = zip(runs, views, titles, strict=True)
    held = overview(
        [(f"r{i}", f"{i}. {title}", found) for i, (found, run, title) in enumerate(named, 1) if run is None]
    )
    own = "<h2>Runs</h2>" if held else ""
    nav = f'<nav aria-label="Runs">{own}<ul class="plain">{"".join(rows)}</ul></nav>'
    return f"<header><h1>{e(heading)}</h1>{warning}</header>\n{held}{nav}"


def _state(run: Run) -> str:
    done = f"{len(run.done)} of {len(run.rows)} rows" + ("" if run.complete else ", stopped before its end")
    return f"{sentence(run)} {done}."


def _section(run: Run, name: str, styles: Mapping[str, Style], heading: str) -> str:
    parts = [f"<h1>{e(heading)}</h1>", f'<p class="lead">{e(sentence(run))}</p>']
    if created := run.results.get("created"):
        parts.append(f'<p class="soft">{e(str(created).replace("T", " ").replace("+00:00", " UTC"))}</p>')
    if warning := progress(run):
        parts.append(f'<p class="alert">{e(warning)}</p>')
    parts += [f'<p class="soft">note: {e(note)}</p>' for note in run.remarks]
    parts += [cards(run, styles), _figures(run, name, styles), _results(run, name, styles), _rest(run), _failures(run)]
    parts.append(_facts(run))
    return f'<section class="run" id="{name}">' + "\n".join(p for p in parts if p) + "</section>"


def _figures(run: Run, name: str, styles: Mapping[str, Style]) -> str:
    from tokred.report import canvas, plots

    what = "Top-1 accuracy" if run.labelled else "Agreement and feature distance"
    shown = []
    for key, draw, caption in (
        ("q", plots.quality, run.words(f"{what} against multiply-adds per clip.")),
        ("s", plots.speedup, "Measured speed-up against the one that the multiply-adds imply, and their ratio."),
    ):
        wide, tall = (draw(run.results, shape, styles) for shape in ("wide", "tall"))
        if wide is None or tall is None:
            shown.append(f'<p class="soft">No picture: {e(caption[0].lower() + caption[1:-1])} was not measured.</p>')
            continue
        alt = f"{caption} Every number is in the table."
        plates = "".join(
            f'<div class="plate {shape}">{canvas.svg(figure, f"{name}{key}{shape[0]}", alt)}</div>'
            for shape, figure in (("wide", wide), ("tall", tall))
        )
        shown.append(f"<figure>{plates}<figcaption>{e(caption)}</figcaption></figure>")
    return "<h2>Pictures</h2>" + "\n".join(shown)


def _results(run: Run, name: str, styles: Mapping[str, Style]) -> str:
    if not run.done:
        return '<h2>Results</h2><p class="soft">No row is finished.</p>'
    lines = "".join(f"<li>{e(text)}</li>" for text in legend(run))
    notes = "".join(f"<li>{e(text)}</li>" for text in run.footnotes)
    return (
        f'<div class="results"><h2 id="{name}-results">Results</h2>'
        '<p class="soft hint">A click on a heading sorts inside each budget.</p>'
        f'{SWIPE}<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}-results">'
        f"{table(run, styles)}</div>"
        f'<ul class="legend">{lines}</ul>'
        + (f'<h3>Notes</h3><ol class="legend">{notes}</ol>' if notes else "")
        + "</div>"
    )


def _rest(run: Run) -> str:
    items = "".join(
        f'<li><span class="tag {"failed" if status == "failed" else ""}">{e(status)}</span>{e(text)}</li>'
        for status, text in leftovers(run)
    )
    return f'<h2>Without a result: {plural(len(run.rest), "row")}</h2><ul class="plain">{items}</ul>' if items else ""


def _failures(run: Run) -> str:
    items = "".join(f"<li><code>{e(f.get('path'))}</code><br>{e(f.get('reason'))}</li>" for f in run.failures)
    if not items:
        return ""
    return f'<h2>{plural(len(run.failures), "file")} could not be used</h2><ul class="plain">{items}</ul>'


def _terms(runs: Sequence[Run], sweeps: Sequence[Mapping[str, Any]]) -> str:
    meanings = [*(definitions(runs) if runs else ()), *sweep_html.definitions(sweeps)]
    items = "".join(f"<div><dt>{e(term)}</dt><dd>{e(text)}</dd></div>" for term, text in meanings)
    css = "run" if len(runs) + len(sweeps) > 1 else "terms"
    return f'<section class="{css}"><h2>What the numbers mean</h2><dl class="terms">{items}</dl></section>'


def _facts(run: Run) -> str:
    items = "".join(f"<div><dt>{e(k)}</dt><dd>{e(v)}</dd></div>" for k, v in reproduce(run))
    command = run.results.get("command")
    how = f"<p>The command of this run:</p><pre>{e(command)}</pre>" if command else ""
    return f"<h2>How to do this again</h2>{how}<dl class='facts'>{items}</dl>"
