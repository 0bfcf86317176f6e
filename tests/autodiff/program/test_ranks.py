"""The gradients of slices, added up in one tree by any number of ranks; here the ranks are threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npflow.autodiff import Layout
from npflow.autodiff.gpu.devices import HOST, to_device
from npflow.autodiff.program import ranks as module
from npflow.autodiff.program.ranks import Ranks, add_in_tree, subtrees
from npflow.autodiff.program.slices import ProgramGradient
from npflow.models import maf
from npflow.networks import MADE


class Threads:
    """What ranks use of a communicator, between threads of one process; it counts the bytes that they send."""

    def __init__(self, size):
        self.size, self.barrier, self.posts, self.own = (
            size,
            threading.Barrier(size),
            [None] * size,
            threading.local(),
        )
        self.sent = [0] * size

    @property
    def rank(self):
        return self.own.rank

    def allgather(self, value):
        self.posts[self.rank] = value
        self.barrier.wait(20)
        everyone = list(self.posts)
        self.barrier.wait(20)
        return everyone

    def bcast(self, value):
        return self.allgather(value)[0]

    def Alltoallv(self, send, receive):
        buffer, (counts, starts) = send
        parts = [buffer[start : start + count].copy() for count, start in zip(counts, starts)]
        self.sent[self.rank] += sum(part.nbytes for part in parts) - parts[self.rank].nbytes
        self.put([parts[self.rank] for parts in self.allgather(parts)], receive)

    def Allgatherv(self, send, receive):
        buffer, count = send
        self.sent[self.rank] += buffer[:count].nbytes * (self.size - 1)
        self.put(self.allgather(buffer[:count].copy()), receive)

    def put(self, parts, receive):
        buffer, (counts, starts) = receive
        flat = buffer.reshape(-1)
        assert [len(part) for part in parts] == list(counts)
        for part, start in zip(parts, starts):
            flat[start : start + len(part)] = part

    def run(self, function):
        """The results of ``function(ranks)`` on each rank."""

        def work(rank):
            self.own.rank = rank
            return function(Ranks(self))

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(work, range(self.size)))


def vectors_of(count, size, dtype=np.float32):
    return list(np.random.default_rng(count).standard_normal((count, size)).astype(dtype))


def total(count, size, ranks, dtype=np.float32, device=HOST):
    vectors = [to_device(vector, device.name) for vector in vectors_of(count, size, dtype)]
    mine = ranks.share(count)
    own = [vectors[number] for number in mine]
    out = own[0] if own else to_device(np.empty(size, dtype), device.name)
    ranks.add_up(own, [(number + 1) / count for number in mine], count, out)
    return device.fetch(out)


# ---------------------------------------------------------------- the tree


def test_a_tree_adds_neighbours_first():
    names = [np.array([name], object) for name in "abcdefg"]
    for name in names:
        name[0] = Named(name[0])
    add_in_tree(names)
    assert names[0][0].text == "(((a+b)+(c+d))+((e+f)+g))"


class Named:
    """A name that shows how it was added up."""

    def __init__(self, text):
        self.text = text

    def __add__(self, other):
        return Named(f"({self.text}+{other.text})")


@given(count=st.integers(1, 40), size=st.integers(1, 12))
def test_ranks_share_the_slices_out_and_own_the_largest_subtrees(count, size):
    ranks, covered = Ranks(), []
    ranks.size = size
    shares = [ranks.share(count, rank) for rank in range(size)]
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for share in shares:
        trees = list(subtrees(share, count))
        assert [number for tree in trees for number in tree] == list(share)
        for tree in trees:  # complete, and none around it lies in the share too
            width = 1 << (len(tree) - 1).bit_length()
            parent = tree.start // (2 * width) * 2 * width
            assert tree.start % width == 0
            assert tree.stop == min(tree.start + width, count)
            around = range(parent, min(parent + 2 * width, count))
            assert around == tree or around.start < share.start or around.stop > share.stop
        covered += trees
    assert len(covered) >= min(size, count)


def test_as_many_ranks_as_a_power_of_two_have_one_subtree_each():
    ranks = Ranks()
    for ranks.size in (1, 2, 4, 8, 16):
        assert all(len(list(subtrees(ranks.share(16, rank), 16))) == 1 for rank in range(ranks.size))


# ---------------------------------------------------------------- the sum


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 16])
def test_any_number_of_ranks_gives_the_bits_of_one(count, size):
    expected = total(count, 11, Ranks())
    exact = sum(
        (number + 1) / count * vector.astype(float) for number, vector in enumerate(vectors_of(count, 11))
    )
    np.testing.assert_allclose(expected, exact, rtol=1e-5, atol=1e-5)
    for result in Threads(size).run(lambda ranks: total(count, 11, ranks)):
        assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("length", [0, 1, 2, 100])
def test_a_vector_shorter_than_the_ranks_and_one_longer_than_a_chunk_are_as_good(length, monkeypatch):
    from npflow.autodiff.program import chunks

    monkeypatch.setattr(chunks, "NUMBERS", 8)
    expected = total(6, length, Ranks())
    for result in Threads(4).run(lambda ranks: total(6, length, ranks)):
        assert result.tobytes() == expected.tobytes()


def test_arrays_on_a_device_go_by_way_of_the_host(device):
    expected = total(4, 9, Ranks())
    for result in Threads(2).run(lambda ranks: total(4, 9, ranks, device=device)):
        assert result.tobytes() == expected.tobytes()
    assert total(4, 9, Ranks(), device=device).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("size", "count"), [(2, 2), (2, 16), (4, 16), (8, 16)])
def test_a_rank_with_one_subtree_sends_less_than_two_vectors(size, count):
    """(R - 1) / R of the vector to the others, and as much of the result: what the guide states."""
    world, length = Threads(size), 16 * size
    world.run(lambda ranks: total(count, length, ranks))
    assert world.sent == [2 * (size - 1) * length * 4 // size] * size


def test_what_the_exchange_takes_is_known(monkeypatch):
    taken = Threads(3).run(lambda ranks: (total(16, 12, ranks), ranks)[1])
    for ranks in taken:
        assert ranks.nbytes(16, 12 * 4) == sum(block.nbytes for block in ranks.blocks.values())
    assert Ranks().nbytes(16, 12 * 8) == 0


# ---------------------------------------------------------------- the gradient of a batch


FLOW = maf(3, 1, MADE((8,)))


def gradient_of(x, count, ranks, threads=1):
    params = FLOW.init(np.random.default_rng(0), x)
    loss_of = ProgramGradient(FLOW.loss, params, threads, count, ranks)
    out = np.empty(Layout(params).size, x.dtype)
    loss_of.slices((x,))
    rows = loss_of.rows_of(len(x)) if ranks is not None else None
    if rows is not None:  # the others are not read
        read = np.full_like(x, np.nan)
        read[rows] = x[rows]
        x = read
    loss = loss_of((x,), out)
    nbytes = loss_of.nbytes((x,))
    loss_of.close()
    return loss, out, nbytes


@pytest.mark.parametrize("count", [1, 3, 6])
def test_loss_and_gradient_of_a_batch_are_those_of_one_process_and_other_ranks_rows_are_not_read(count):
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    loss, gradient, nbytes = gradient_of(x, count, None)
    assert np.isfinite(gradient).all()
    for size in (2, 3):
        for other, same, less in Threads(size).run(lambda ranks: gradient_of(x, count, ranks)):
            assert (other, other.dtype, same.tobytes()) == (loss, loss.dtype, gradient.tobytes())
            assert less <= nbytes + 2 * gradient.nbytes


def test_slices_may_be_counted_by_the_caller_and_are_at_most_the_rows():
    x = np.random.default_rng(0).standard_normal((5, 3))
    params = FLOW.init(np.random.default_rng(0), x)
    for count, made in ((1, 1), (4, 4), (9, 5)):
        assert len(ProgramGradient(FLOW.loss, params, count=count).slices((x,))) == made


def test_a_batch_on_a_device_is_cut_where_the_caller_says_so(device):
    x = np.random.default_rng(0).standard_normal((9, 3))
    params = to_device(FLOW.init(np.random.default_rng(0), x), device.name)
    x, results = to_device(x, device.name), []
    for count in (None, 3):
        loss_of, out = (
            ProgramGradient(FLOW.loss, params, 2, count),
            to_device(np.empty(Layout(params).size), device.name),
        )
        loss_of((x,), out)
        assert len(loss_of.slices((x,))) == (count or 1)
        results.append(device.fetch(out))
    np.testing.assert_allclose(*results, rtol=1e-12, atol=1e-12)


def test_one_rank_reads_all_rows_and_has_all_cores(monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {1, 2, 5}, raising=False)
    assert Ranks().threads() == 3
    assert ProgramGradient(FLOW.loss, {}).rows_of(7) is None


def test_small_messages():
    results = Threads(3).run(
        lambda ranks: (ranks.gather(ranks.rank), ranks.first(ranks.rank), ranks.any(ranks.rank == 2))
    )
    assert results == [([0, 1, 2], 0, True)] * 3
    assert (Ranks().gather(5), Ranks().first(5), Ranks().any(False), Ranks().is_first) == (
        [5],
        5,
        False,
        True,
    )
