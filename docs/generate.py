"""Write the site's pages: python docs/generate.py FOLDER

The reference comes from the program itself: the study's JSON Schema, the plug-ins, the tables, the
command line and the docstrings. What people wrote (README.md, docs/*.md, decisions) is laid beside
it, at the places where links expect it. Sphinx makes HTML of the folder; see script/docs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from keys import keys, pipes, table
from python_pages import page, prose, public

from clinloom import cli, plugins, tables
from clinloom.study import schema

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = ("GLOSSARY.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PUBLIC = (
    "clinloom",
    "clinloom.run.api",
    "clinloom.deploy.bundle",
    "clinloom.learn.stages",
    "clinloom.study.schema",
    "clinloom.study.split",
    "clinloom.plugins",
    "clinloom.errors",
)
KERNELS = (
    "clinloom.audit",
    "clinloom.clean",
    "clinloom.cohort",
    "clinloom.cohort.split",
    "clinloom.cohort.division",
    "clinloom.features",
    "clinloom.radiomics",
    "clinloom.evaluate.discrimination",
    "clinloom.evaluate.calibration",
    "clinloom.evaluate.flexible",
    "clinloom.evaluate.points",
    "clinloom.evaluate.subgroups",
    "clinloom.evaluate.importance",
    "clinloom.evaluate.utility",
    "clinloom.evaluate.bootstrap",
    "clinloom.evaluate.cells",
    "clinloom.evaluate.drift",
    "clinloom.evaluate.fitness",
    "clinloom.evaluate.watch",
    "clinloom.evaluate.alarms",
)


def pages() -> Iterator[tuple[str, str]]:
    """Every page of the reference: its place and its Markdown."""
    whole = schema(plugins)
    yield "reference/study.md", study(whole)
    for room in plugins.ROOMS:
        yield f"reference/{room}.md", plug_ins(room)
    yield "reference/tables.md", declared_tables()
    yield "reference/commands.md", commands(cli.parser())
    lead = "What a program or a notebook calls. Everything else may change without a word."
    yield "reference/python.md", page("Python", PUBLIC, lead)
    lead = "Pure functions over Arrow tables and NumPy arrays: no Spark, no files, no state."
    yield "reference/kernels.md", page("Kernels", KERNELS, lead)


def study(whole: Mapping[str, Any]) -> str:
    """Every key of a study file, from its JSON Schema."""
    defs, top = whole["$defs"], whole["properties"]
    parts = [
        "# The study file\n\n"
        "Every key. A duration is written like `30d`, `48h`, `90m`, `2w` or `1y`; `part[].key` is a"
        " key of each part of a list, `part.NAME.key` of each named part. Unknown keys are faults."
        " `clinloom validate --schema STUDY` prints the same as a JSON Schema, for editors.\n"
    ]
    singles = {name: node for name, node in top.items() if name not in plugins.ROOMS}
    plain = {name: node for name, node in singles.items() if "$ref" not in node}
    head = {"properties": plain, "required": whole["required"]}
    parts.append(f"## The study itself\n\n{table([*keys(head, defs)])}")
    for name in top:
        if name in plugins.ROOMS:
            parts.append(f"## {name}\n\nWhat each does: [{name}](<{name}.md>).\n")
            for choice in plugins.choices(name):
                parts.append(f"### {name}: {choice}\n\n{options(name, choice)}")
        elif name not in plain:
            node = defs[top[name]["$ref"].rsplit("/", 1)[1]]
            found = [*keys(node, defs, prefix=f"{name}.")]
            parts.append(f"## {name}\n\n{node.get('description', '')}\n\n{table(found)}")
    return "\n".join(parts)


def options(room: str, name: str) -> str:
    """The table of a plug-in's options."""
    node = plugins.options(room, name).model_json_schema()
    return (
        table([*keys(node, node.get("$defs", {}))]) if node.get("properties") else "No options.\n"
    )


def plug_ins(room: str) -> str:
    """A page of a room: what each plug-in is, what it needs, its options and its verbs."""
    loaded = [(name, plugins.load(room, name)) for name in plugins.choices(room)]
    loaded.sort(key=lambda item: getattr(item[1], "ORDER", 0))
    parts = [f"# {room}\n\n{prose(sys.modules[f'clinloom.{room}'])}\n"]
    for name, module in loaded:
        parts.append(f"## {name}\n\n{prose(module)}\n\n{_needs(module)}")
        parts.append(f"{prose(module.Options)}\n\n{options(room, name)}")
        for verb, function in public(module, FunctionType):
            parts.append(f"**`{verb}`**: {prose(function)}\n")
    return "\n".join(parts)


def _needs(module: ModuleType) -> str:
    extra = getattr(module, "REQUIRES", None)
    return f'Needs `pip install "clinloom[{extra}]"`.\n\n' if extra else ""


def declared_tables() -> str:
    """Every declared table and column."""
    parts = [f"# Tables\n\n{prose(tables)}\n"]
    for name, declared in vars(tables).items():
        if not isinstance(declared, tables.Table):
            continue
        rows = [
            (f"`{c.name}`", str(c.type), "" if c.nullable else "never null", c.meaning)
            for c in declared.columns
        ]
        key = ", ".join(f"`{column}`" for column in declared.key)
        order = f" Sorted by {key}." if key else ""
        parts.append(f"## {name.lower().replace('_', ' ')}\n\n{_sentence(declared.why)}{order}\n")
        parts.append(pipes(("column", "type", "null", "meaning"), rows))
    return "\n".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def commands(parser: argparse.ArgumentParser) -> str:
    """The help of the command line and of every command."""
    os.environ["COLUMNS"] = "88"
    parts = [f"# The command line\n\n```text\n{parser.format_help()}```\n"]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                parts.append(f"## clinloom {name}\n\n```text\n{command.format_help()}```\n")
    return "\n".join(parts)


def index(guides: list[str]) -> str:
    """The README, with the way to every other page."""
    text = (ROOT / "README.md").read_text()
    rooms = [f"reference/{room}" for room in plugins.ROOMS]
    ways = {
        "Guides": guides,
        "Study file": ["reference/study", *rooms],
        "Reference": [f"reference/{name}" for name in ("tables", "commands", "python", "kernels")],
        "Why and how": [
            "GLOSSARY",
            "docs/decisions/index",
            "CONTRIBUTING",
            "SECURITY",
            "CHANGELOG",
        ],
    }
    for caption, entries in ways.items():
        if entries:
            listed = "\n".join(entries)
            text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"
    return text


def main(target: Path) -> None:
    """Lay out the whole source of the site under ``target``."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "decisions", target / "docs" / "decisions")
    guides = []
    for path in sorted((ROOT / "docs").glob("*.*")):
        if path.suffix in (".md", ".png", ".svg"):
            shutil.copy(path, target / "docs")
        if path.suffix == ".md":
            guides.append(f"docs/{path.stem}")
    toctree = "```{toctree}\n:glob:\n:maxdepth: 1\n\n0*\n```\n"
    text = f"# Decisions\n\nWhy things are as they are, with their price.\n\n{toctree}"
    made = {"index.md": index(guides), "docs/decisions/index.md": text, **dict(pages())}
    made |= {name: (ROOT / name).read_text() for name in WRITTEN}
    for place, text in made.items():
        file = target / place
        file.parent.mkdir(parents=True, exist_ok=True)
        text = re.sub(r"\]\(docs/decisions/?\)", "](docs/decisions/index.md)", text)
        file.write_text(text.replace("](README.md", "](index.md"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
