"""What README and the guide show, made again by the commands that they name.

Above each picture and each table of figures a page has a comment ``<!-- made by: COMMAND -->``. The commands of a block of
``sh`` make the block of text that follows them.

    python benchmarks/readme.py                      # list the commands
    python benchmarks/readme.py tabular              # run those with this word; show what differs from the page
    python benchmarks/readme.py demos/moons --write  # also put new pictures in the place of the old ones
    python benchmarks/readme.py --stale              # which pictures were drawn by other code than today's

Lines are compared with their numbers left out, and the numbers are shown beside each other: those of a training run or a clock
differ between machines. A picture keeps in its file a digest of the code that drew it, and what the quick run of its demo
showed then: the texts and the numbers. The tests compare both with those of today, and fail where the picture has become stale.
The digest covers the demo and the files of npflow.plots that it calls, without comments and docstrings; a change elsewhere in
npflow counts if it changes a number of the quick run by more than a thousandth.
"""

import argparse
import hashlib
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/guide/*.md"))]
NUMBER = r"[-\u2212]?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?"
MADE_BY = r"<!-- made by: (.*?) -->\n+(!\[.*?\]\((.*?)\)|(?:\|.*\n)+)"
OUTPUT = r"```sh\n((?:npflow [^\n]*\n)+)```\n+```text\n(.*?)```"


def shown_by_commands():
    """Tuples (command, path of the picture or None, lines) of the pages."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for command, lines, picture in re.findall(MADE_BY, text):
            yield command, (page.parent / picture).resolve() if picture else None, lines.splitlines()
        for commands, lines in re.findall(OUTPUT, text, flags=re.DOTALL):
            commands = re.sub(r" +#.*", "", commands).strip()
            yield " && ".join(commands.splitlines()), None, lines.splitlines()


def shows(figures, summary):
    """What the figures of a demo say and what its summary counts, apart from what depends on the machine.

    Texts are without numbers that have a decimal point, and those of ticks are left out. So are times.
    """
    from matplotlib.text import Text

    texts = {text.get_text() for figure in figures for text in figure.findobj(Text)}
    words = {re.sub(r"[-+\u2212]?\d+\.\d+", "#", text) for text in texts if re.search(r"[A-Za-z]", text)}

    def numbers(value, name=""):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from numbers(item, f"{name}/{key}")
        elif isinstance(value, int | float) and not re.search("second|minute|bytes|faster", name):
            yield name, value

    return {"texts": sorted(words), "numbers": dict(numbers(summary))}


def digest(picture):
    """A digest of the code that draws a picture: its demo, and the files of npflow.plots that this calls."""
    from npflow import plots

    demo = picture.with_suffix(".py")
    called = re.findall(r"\bplots\.(\w+)\(", demo.read_text("utf-8"))
    files = {Path(inspect.getsourcefile(getattr(plots, name))) for name in called}
    files |= {Path(plots.__file__).with_name(name) for name in ("canvas.py", "style.py")}
    code = "".join(file.read_text("utf-8") for file in [demo, *sorted(files)])
    code = re.sub(r'""".*?"""|^\s*#.*?$|\s', "", code, flags=re.DOTALL | re.MULTILINE)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def stale(picture):
    """Whether other code than today's drew a picture."""
    return kept(picture).get("digest") != digest(picture)


def kept(picture):
    """What a picture keeps of the quick run of its demo."""
    from PIL import Image

    with Image.open(picture) as image:
        return json.loads(image.text.get("Shows", '{"texts": [], "numbers": {}}'))


def keep(picture, new):
    """Write a new picture in the place of an old one, with what the quick run of its demo shows."""
    from matplotlib import pyplot
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    demo = picture.with_suffix(".py")
    pyplot.switch_backend("agg")
    with tempfile.TemporaryDirectory() as out, redirect_stdout(StringIO()):
        sys.argv = [demo.name, "--out", out, "--quick"]
        runpy.run_path(str(demo), run_name="__main__")
        summary = json.loads((Path(out) / "summary.json").read_text())
    info = PngInfo()
    shown = shows(map(pyplot.figure, pyplot.get_fignums()), summary) | {"digest": digest(picture)}
    info.add_text("Shows", json.dumps(shown))
    pyplot.close("all")
    with Image.open(new) as image:
        # A third of the bytes; the default method would lose the few pixels at the top of a colour map.
        smaller = image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
        smaller.save(picture, pnginfo=info, optimize=True)
    print(f"written to {picture}")


def remedy(picture):
    """The command that makes a picture again."""
    return f"python benchmarks/readme.py demos/{picture.stem} --write"


def words(line):
    """A line without its numbers, and in one unit of time."""
    line = re.sub("minutes|hours", "seconds", line.replace("**", ""))
    return " ".join(re.sub(NUMBER, "#", line).split())


def compare(lines, printed):
    """Print a page's lines beside those of the same words that were printed; return how many have none."""
    missing = 0
    for line in lines:
        same = [new for new in printed if words(new) == words(line)]
        missing += not same
        if line not in same:
            print(f"page  {line}\nnow   {same[0] if same else 'no such line'}")
    return missing


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "word", nargs="?", help="run the commands with this word in them; without it, list all"
    )
    parser.add_argument("--more", default="", help="further options of the command, such as --path DIR")
    parser.add_argument("--write", action="store_true", help="put new pictures in the place of the old ones")
    parser.add_argument("--stale", action="store_true", help="list the pictures that other code has drawn")
    options = parser.parse_args()
    if options.stale:
        old = [picture for picture in sorted(ROOT.glob("demos/*.png")) if stale(picture)]
        print(*(f"stale: {remedy(picture)}" for picture in old), sep="\n", end="\n" * bool(old))
        return int(bool(old))
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    missing = 0
    for command, picture, lines in shown_by_commands():
        print(
            f"\n{command}\n    makes {picture.relative_to(ROOT) if picture else f'{len(lines)} lines'}",
            flush=True,
        )
        if options.word is None or options.word not in command:
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = re.sub(r"(?<=python )(?=demos|benchmarks)", f"{ROOT}/", f"{command} {options.more}")
            result = subprocess.run(
                run, shell=True, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True
            )
            if picture is None:
                missing += compare(lines, result.stdout.splitlines())
            elif options.write:
                name = "levels" if picture.stem == "cifar10" else picture.stem
                keep(picture, next(Path(folder).rglob(f"{name}.png")))
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
