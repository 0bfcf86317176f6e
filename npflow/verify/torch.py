"""`check_torch`: transforms of PyTorch, whichever library they come from."""

import contextlib

import numpy as np
import torch

from npflow.verify.peers import Peer, arrays_in, checker


@checker
def check_torch(transform, x, *, inverse=None, context=None, move=True, name=None, **known):
    """Hold a transform of PyTorch against its numerical Jacobian, and against PyTorch's own.

    Parameters
    ----------
    transform : object
        A module or transform of torch.distributions, pyro, zuko, nflows, normflows or FrEIA, or one that follows their
        conventions: ``forward`` and ``inverse`` return an array and its log-det; ``log_abs_det_jacobian(x, y)``;
        ``forward_and_log_det`` and ``inverse_and_log_det``; or ``forward(x, rev=True)`` is the inverse. Or a function
        that returns a tensor and its log-det.
    move : bool
        Whether to look at parameters that require gradients away from where they are too: moved by noise, and with
        random signs. An error hides where a layer starts as the identity.

    Notes
    -----
    The transform itself is left as it is: copies are called, in float64 and float32, on fresh tensors without
    gradients. A copy is called once as it comes, and then checked in eval mode; what the first call changed, as a
    data-dependent start does, is a note of the report. Log-dets for each element are summed over a row, with a note.

    Examples
    --------
    >>> import torch
    >>> from npflow.verify import check_torch
    >>> check_torch(torch.distributions.AffineTransform(1.0, 2.0), torch.randn(8, 3)).passed
    True
    """
    with _one_thread():
        peer = Torch(transform, inverse, _numpy(x), None if context is None else _numpy(context))
        return peer.check(name or getattr(transform, "__name__", type(transform).__name__), move, **known)


class Torch(Peer):
    """A transform of PyTorch: copies are called without gradients, in eval mode."""

    kind = torch.Tensor
    with_gradients = False

    def array(self, array):
        return torch.from_numpy(np.ascontiguousarray(array))

    def numpy(self, value):
        return _numpy(value)

    def fresh(self, array):
        return array.clone()

    @contextlib.contextmanager
    def calling(self, dtype):
        """Without gradients where none are needed; what a transform makes, such as zeros, has the dtype too."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, str(dtype)))
        try:
            with torch.enable_grad() if self.with_gradients else torch.no_grad():
                yield
        finally:
            torch.set_default_dtype(before)

    def cast_to(self, dtype):
        kind = getattr(torch, str(dtype))

        def cast(path, tensor):
            new = tensor.detach().cpu()
            return self.like(tensor, new.to(kind, copy=True) if new.is_floating_point() else new.clone())

        return cast

    def like(self, leaf, array):
        array = array if isinstance(array, torch.Tensor) else torch.from_numpy(np.asarray(array))
        if isinstance(leaf, torch.nn.Parameter):
            return torch.nn.Parameter(array, requires_grad=leaf.requires_grad)
        return array.requires_grad_(leaf.is_leaf and leaf.requires_grad)

    def tensors(self, dtype):
        """x and the context, which may be None, in a dtype."""
        return [None if array is None else self.array(array) for array in self.batch(dtype)]

    def trains(self, value):
        return {path for path, leaf in arrays_in(value, torch.Tensor) if leaf.is_leaf and leaf.requires_grad}

    def first_call(self, version, dtype):
        before = {path: leaf.detach().clone() for path, leaf in arrays_in(version, torch.Tensor)}
        modules = [one for one in version if isinstance(one, torch.nn.Module)]
        forward = self.conventions(version).forward
        try:
            with self.calling(dtype):
                forward(*self.tensors(dtype))
        except Exception as error:
            # A log-det by a derivative needs gradients, and some modules can be called in eval mode alone.
            self.with_gradients = "grad" in str(error)
        for module in modules:
            module.eval()
        changed = [
            path.partition(".")[2]
            for path, leaf in arrays_in(version, torch.Tensor)
            if path in before and "cache" not in path and not _same(before[path], leaf)
        ]
        if changed:
            self.notes.append(
                f"the first call of forward changed {', '.join(changed)}: a start that depends on its batch, or "
                "statistics; checked as it is after that call, in eval mode"
            )

    def exact(self, function, rows):
        """One backward pass for each output, for all rows at once."""
        with torch.enable_grad():
            rows.requires_grad_()
            y = function(rows.clone())  # a leaf must not be changed in place
            columns = y.reshape(len(y), -1).unbind(1)
            found = [
                torch.autograd.grad(one.sum(), rows, retain_graph=True, materialize_grads=True)[0]
                for one in columns
            ]
        return torch.stack([one.reshape(len(rows), -1) for one in found], 1)

    def gradients(self, version, dtype):
        leaves = {path: leaf for path, leaf in arrays_in(version, torch.Tensor) if path in self.trained}
        with self.calling(dtype), torch.enable_grad():
            y, log_det = self.conventions(version).forward(*self.tensors(dtype))
            total = y.sum() + (log_det.sum() if isinstance(log_det, torch.Tensor) else 0)
            found = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
        for path, gradient in zip(leaves, found):
            yield path.partition(".")[2], _numpy(gradient)


@contextlib.contextmanager
def _one_thread():
    """One thread for PyTorch: the threads that it keeps waiting cost more than small tensors gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _numpy(value):
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _same(first, second):
    return first.shape == second.shape and torch.equal(
        torch.nan_to_num(first.detach()), torch.nan_to_num(second.detach())
    )
