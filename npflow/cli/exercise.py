"""``npflow exercise``: exercises that mark themselves."""

from pathlib import Path

from npflow import exercises
from npflow.cli.parsing import add_command
from npflow.cli.verify import own_module
from npflow.errors import InputError


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "exercise",
        run,
        "write a layer yourself, and have it marked",
        "Without a NAME, lists the exercises; without a FILE, writes NAME.py, a page to complete. The exit "
        "status is 1 if an answer is not right yet.",
        "npflow exercise coupling               # writes coupling.py\n"
        "  npflow exercise coupling coupling.py   # marks it",
        folder=False,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="an exercise")
    parser.add_argument("file", nargs="?", metavar="FILE", help="your answer: the page, completed")


def run(arguments):
    """List the exercises, write a page, or mark an answer."""
    name, file = arguments.name, arguments.file
    if name is None:
        for one in exercises.EXERCISES.values():
            print(f"{one.name:20}{one.title}")
        print("\nnpflow exercise NAME writes NAME.py, and npflow exercise NAME NAME.py marks it.")
        return 0
    if file is None:
        return write(name, exercises.page(name))
    exercise, module = exercises.find(name), own_module(file)
    if not hasattr(module, exercise.asked):
        raise InputError(f"expected {file} to define {exercise.asked}, as the page of {name} does, got none")
    mark = exercise.mark(getattr(module, exercise.asked))
    print(mark)
    return 0 if mark.passed else 1


def write(name, text):
    """Write a page into the current folder; raise `InputError` if a file is there."""
    path = Path(f"{name}.py")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(
            f"expected no file {path} yet, got one: mark it with npflow exercise {name} {path}, or rename it"
        ) from error
    print(f"{path} is written. Complete it, and mark it with\n  npflow exercise {name} {path}")
    return 0
