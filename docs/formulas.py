"""The formulas of docstrings, which are plain text, in LaTeX."""

import re

FUNCTIONS = {"exp", "log", "det", "tanh"}  # LaTeX has a command for each
OPERATORS = {"sum": r"\sum ", "prod": r"\prod "}
GREEK = {"Phi", "alpha", "beta", "epsilon", "sigma", "pi"}
NAMES = {"log_scale", "log_std"}  # an underscore in other names starts an index
SIGNS = {
    **{"*": r"\cdot ", "<=": r"\le ", ">=": r"\ge ", "<-": r"\leftarrow ", "->": r"\to ", "~": r"\sim "},
    **{"...": r"\dots ", "||": r"\,\|\, "},
}
TOKEN = re.compile(
    r"(?P<space> )|(?P<name>log_scale|log_std|[A-Za-z]+)(?P<digit>\d?)(?P<prime>'?)|(?P<number>\d+(\.\d+)?)"
    r"|(?P<power>[_^])(\{(?P<group>[^{}]*)\}|(?P<short>-?\w))?(?P<rest>[A-Za-z]*)"
    r"|(?P<sign>\.\.\.|<=|>=|<-|->|\|\||[-+*/=<>~()\[\],;:|])"
)
WIDE = 75  # characters; a row of columns that is wider is cut into rows
PROSE = re.compile(r"\b(is|in|by|for|from|as|one|each|the|to|kernel)\b")


def tex_of(formula):
    """A formula of a docstring in LaTeX; ValueError where a sign is not known."""
    done, at = [], 0
    while at < len(formula):
        found = TOKEN.match(formula, at)
        if not found:
            raise ValueError(f"expected a formula, got {formula!r}")
        at, name = found.end(), found["name"]
        if name == "sqrt" and formula[at : at + 1] == "(":
            depth, end = 1, at + 1
            while depth and end < len(formula):
                depth, end = depth + {"(": 1, ")": -1}.get(formula[end], 0), end + 1
            done.append(rf"\sqrt{{{tex_of(formula[at + 1 : end - 1])}}}")
            at = end
        elif name:
            if name in OPERATORS:
                word = OPERATORS[name]
            elif name in FUNCTIONS or name in GREEK:
                word = rf"\{name} "
            else:
                word = name if len(name) == 1 else r"\mathrm{" + name.replace("_", r"\_") + "}"
            done.append(word + (f"_{{{found['digit']}}}" if found["digit"] else "") + found["prime"])
        elif found["power"]:
            inside = found["group"] if found["group"] is not None else (found["short"] or "") + found["rest"]
            if not inside:
                raise ValueError(f"expected an index, got {formula!r}")
            done.append(f"{found['power']}{{{tex_of(inside)}}}")
        elif found["space"]:
            done.append(r"\ " if done and formula[at - 2 : at - 1] == "," else r"\,")
        else:
            done.append(SIGNS.get(found["sign"], found["sign"]) if found["sign"] else found["number"])
    # Binary signs have spaces of their own.
    return re.sub(r"\\,(?=[-+=<>]|\\(?:cdot|le|ge|leftarrow|to|sim|,) )|(?<=[-+=<>])\\,", " ", "".join(done))


def cell_in_tex(cell):
    """A column's text: a formula, and words after it."""
    words = PROSE.search(cell)
    formula, text = (cell[: words.start()], cell[words.start() :]) if words else (cell, "")
    if words and re.fullmatch(r"[a-z] ", formula):  # "a is unchanged"
        formula, text = "", cell
    if re.match(r"by \w ", text):  # "by x <- x + h"
        return tex_of(formula.rstrip()) + r"\ \text{ by }\ " + tex_of(text[3:])
    if re.search(r"[_^{}\\$<|]", text) or re.search(r"\b[a-z]{3,} [a-z]{3,}\b(?!\()", formula):
        raise ValueError(f"expected a formula and words, got {cell!r}")
    return tex_of(formula.rstrip()) + (rf"\ \text{{{' ' * bool(formula)}{text}}}" if text else "")


def in_tex(rows):
    """The lines of a `math` directive for rows of formulas in columns; None where one cannot be read."""
    cells = [[(one.start(), one[0]) for one in re.finditer(r"\S+(?: \S+)*", row)] for row in rows]
    starts = sorted({start for row in cells for start, _ in row})
    columns = [start for i, start in enumerate(starts) if not i or start - starts[i - 1] > 2]
    try:
        table = [
            {max(c for c in columns if c <= start): cell_in_tex(cell) for start, cell in row} for row in cells
        ]
    except ValueError:
        return None
    if max(sum(len(cell) for _, cell in row) for row in cells) > WIDE:
        columns, table = [0], [{0: cell} for row in table for cell in row.values()]
    lines = [" & ".join(row.get(column, "") for column in columns) + r" \\" for row in table]
    return [rf"\begin{{array}}{{{'l' * len(columns)}}}", *lines, r"\end{array}"]


def formulas_in_tex(app, what, name, thing, options, lines):
    """Set a paragraph of formulas in LaTeX, or, where it cannot be read, as a literal block that keeps its columns.

    Formulas stand above the first section of a docstring. A paragraph is one if every line is set in columns, is
    indented, or is an equation that does not end like a sentence.
    """
    heading = next(
        (i for i, line in enumerate(lines) if re.fullmatch(r"-{3,}", line.strip())), len(lines) + 1
    )
    body, rest = lines[: heading - 1], lines[heading - 1 :]
    done = []
    for paragraph in re.split(r"\n(?:[ \t]*\n)+", "\n".join(body)):
        rows = paragraph.split("\n")
        equation = re.compile(r"^[^.`]*\s(=|<=|>=|->|~)\s.*[^.:;]$")
        formula = bool(done) and all(re.search(r"\S {2,}\S|^ ", row) or equation.match(row) for row in rows)
        formula = (
            formula and any(equation.match(row) for row in rows) and not rows[0].startswith((" ", ">>>", "="))
        )
        if formula:
            tex = in_tex(rows)
            done += [".. math::" if tex else "::", "", *(f"    {row}" for row in tex or rows), ""]
        else:
            done += [*rows, ""]
    lines[:] = [*done, *rest]
