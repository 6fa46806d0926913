#!/usr/bin/env python3
"""Reads the reports of a results document with parsers that know nothing of bitgauge:
check_files.py PATH-OF-render_report FILE."""
import csv
import html.parser
import io
import json
import subprocess
import sys

VOID = {"meta", "br", "hr", "img", "input", "link", "wbr", "col"}
problems = []


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.labels, self.images = [], [], [], 0
        self.text, self.row, self.tables = [], None, []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("script", "link", "iframe", "object", "embed", "img", "base"):
            problems.append(f"line {self.getpos()[0]}: a page that needs <{tag}>")
        for name, value in attributes.items():
            if name.startswith("on") or name in ("src", "href", "xlink:href", "srcset", "action"):
                problems.append(f"line {self.getpos()[0]}: {name}={value}")
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if attributes.get("role") == "img":
            self.images += 1
            self.labels += attributes.get("aria-labelledby", "missing").split()
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append(0)
        if tag in ("td", "th"):
            self.tables[-1][-1] += int(attributes.get("colspan", 1))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            problems.append(f"line {self.getpos()[0]}: </{tag}> closes something else")

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def render(program, form, path):
    return subprocess.run([program, form, "80", path], check=True,
                          stdout=subprocess.PIPE).stdout.decode("utf-8")


def main():
    program, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        document = json.load(file)

    page = Page()
    page.feed(render(program, "html", path))
    page.close()
    text = "".join(page.text)
    if page.open:
        problems.append(f"never closed: {page.open}")
    if len(page.ids) != len(set(page.ids)):
        problems.append("an id is there twice")
    if missing := set(page.labels) - set(page.ids):
        problems.append(f"images labelled by what is not there: {missing}")
    if page.images < 7:
        problems.append(f"only {page.images} charts")
    for i, table in enumerate(page.tables):
        if len(set(table)) != 1:
            problems.append(f"table {i}: rows of {sorted(set(table))} cells")
    for model in document["models"]:
        if model["path"] not in text:
            problems.append("a model's path is not on the page")
    if document["command"] not in text:
        problems.append("the command is not on the page")

    rows = list(csv.DictReader(io.StringIO(render(program, "csv", path), newline=""),
                               strict=True))
    if len(rows) != len(document["runs"]):
        problems.append(f"{len(rows)} lines of CSV for {len(document['runs'])} runs")
    for row, run in zip(rows, document["runs"]):
        if None in row or None in row.values():
            problems.append("a line of CSV has more or fewer fields than the heading")
        if row["precision"] != run["precision"] or row["error"] != run.get("error", ""):
            problems.append(f"CSV says {row['precision']}, {row['error']}")
        if "decode" in run and float(row["decode_median_seconds"]) != run["decode"]["median_s"]:
            problems.append("CSV has another decode median")
        for entry in run.get("perplexity", []):
            if float(row["perplexity_" + entry["protocol"]]) != entry["value"]:
                problems.append("CSV has another perplexity")

    if json.loads(render(program, "json", path)) != document:
        problems.append("JSON is not what was read")
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems")
    return 1 if problems else 0


sys.exit(main())
