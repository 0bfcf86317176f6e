"""Pickles read as data: what a pickle would call is noted, and nothing is called.

A pickle is a program for a stack machine: GLOBAL fetches any function of any module, REDUCE calls it, BUILD sets
attributes. Admitting harmless functions only (`pickle.Unpickler.find_class`) still leaves a doctored file the
means to take all memory, or to crash the interpreter: with arrays of any shape, places in the memo that are
billions apart, keys that are tuples of tuples of tuples. The machine here has no means to call anything. It knows
the instructions that dicts, lists and NumPy's arrays are written with in protocol 2, and a file can make it take
a few times the file's own size, no more.
"""

import functools
import pickletools
from dataclasses import dataclass

import numpy as np

from npflow.errors import InputError

# Instructions; a batch of CIFAR-10, which is what is read here, has about half as many at most.
MOST = 200_000

# By NumPy 1, by 2.
RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
CALLED = (*RECONSTRUCT, "numpy.dtype")
KNOWN = (*CALLED, "numpy.ndarray", "_codecs.encode")


@dataclass(repr=False)
class Call:
    """A call that a pickle asks for, which is not made.

    Attributes
    ----------
    function : str
        One of `CALLED`.
    arguments : tuple
    state : object
        What the result's `__setstate__` would have been given.
    """

    function: str
    arguments: tuple
    state: object = None


def read_pickle(data):
    """The object in a pickle: dicts with keys of bytes, lists, tuples, integers, bytes, text; a `Call` for an array.

    Strings of Python 2 are bytes here. Protocol 2 has no bytes, so newer Pythons write ``_codecs.encode(text,
    "latin1")`` for them; these are bytes again.

    Parameters
    ----------
    data : bytes
        The file.

    Raises
    ------
    InputError
        If it is damaged or cut short, if it names a function that arrays do not need, or if it has other
        instructions than these need, or far more of them.
    """
    stack, marks, memo = [], [], {}
    # Each text once, however often it is asked for.
    encode = functools.cache(lambda text: text.encode("latin-1"))

    def pop_to_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    place = 0
    try:
        for count, (instruction, argument, place) in enumerate(pickletools.genops(data)):
            if count == MOST:
                raise InputError(f"expected a pickle of fewer than {MOST:,} instructions, got more")
            match instruction.name:
                case "PROTO":
                    pass  # what matters is which instructions follow
                case "STOP":
                    return stack.pop()
                case "NONE":
                    stack.append(None)
                case "NEWFALSE" | "NEWTRUE":
                    stack.append(instruction.name == "NEWTRUE")
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                    stack.append(argument)
                case "BINSTRING" | "SHORT_BINSTRING":
                    stack.append(argument.encode("latin-1"))
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST":
                    stack.append([])
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE":
                    stack.append(tuple(pop_to_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    length = int(instruction.name[-1])
                    stack[-length:] = [tuple(stack[-length:])]
                case "APPEND":
                    item = stack.pop()
                    stack[-1].append(item)
                case "APPENDS":
                    items = pop_to_mark()
                    stack[-1].extend(items)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _set_items(stack[-1], [key, value])
                case "SETITEMS":
                    items = pop_to_mark()
                    _set_items(stack[-1], items)
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    function = argument.replace(" ", ".")
                    if function not in KNOWN:
                        raise InputError(
                            f"expected a pickle that names nothing but NumPy's arrays, got one that names "
                            f"{function[:80]!r}; nothing in it was called"
                        )
                    stack.append(function)
                case "REDUCE":
                    arguments, function = stack.pop(), stack.pop()
                    match function, arguments:
                        case "_codecs.encode", (str(text), "latin1"):
                            stack.append(encode(text))
                        case str(name), tuple() if name in CALLED:
                            stack.append(Call(name, arguments))
                        case _:
                            raise InputError(
                                "expected a pickle that makes nothing but arrays and their dtypes, got one with "
                                "another call; nothing in it was called"
                            )
                case "BUILD":
                    state = stack.pop()
                    stack[-1].state = state
                case name:
                    raise InputError(
                        f"expected a pickle of protocol 2 with dicts, lists and NumPy's arrays, got the instruction "
                        f"{name} at byte {place:,}"
                    )
    except InputError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"expected a pickle, got a file that is damaged or cut short after byte {place:,}"
        ) from error


def as_array(value):
    """The array of uint8 that a `Call` from a pickle stands for, shape (rows, columns).

    Raises
    ------
    InputError
        If it stands for anything else, or has another number of bytes than its shape says.
    """
    match value:
        case Call(
            function,
            state=(
                _,
                (int(rows), int(columns)),
                Call("numpy.dtype", (b"u1" | "u1", *_)),
                bool(by_column),
                bytes(raw),
            ),
        ) if function in RECONSTRUCT and rows > 0 and columns > 0 and rows * columns == len(raw):
            return np.frombuffer(raw, np.uint8).reshape((rows, columns), order="F" if by_column else "C")
        case _:
            raise InputError("expected an array of uint8 with two axes, got something else in its place")


def _set_items(target, items):
    """The pairs of a list into a dict."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, bytes):  # the hash of nested tuples may take for ever
            raise TypeError("a key that is no bytes")
        target[key] = value
