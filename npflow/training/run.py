"""The state of a training run between two steps, and how it is saved and taken up again."""

import zlib
from dataclasses import dataclass
from functools import partial

import numpy as np

from npflow.autodiff import Layout, tree
from npflow.autodiff.gpu.device import Device
from npflow.autodiff.gpu.devices import as_array, device_of, fetch, to_device, to_host
from npflow.autodiff.program.chunks import in_chunks
from npflow.description import describe, rebuild
from npflow.errors import InputError, NonFiniteError
from npflow.training.adam import Adam
from npflow.training.checkpoint import FORMATS, load_run, with_prefix, write
from npflow.training.data import Batch
from npflow.training.history import History
from npflow.training.random_state import from_plain, to_plain


@dataclass
class Run:
    """The state of a training run between two steps: everything a checkpoint has to hold.

    The run is made on `device`, and what it gives lives at `home`, where its parameters came from. `vector` holds
    the parameters and `params` are its views; `before` is what it was one step before; `average` and `best` are
    vectors like it, or None. `order`, on the host, is this epoch's order of the rows, `epoch_rng`
    the random state it was drawn from, and `position` how many of its rows are used up.
    """

    model: object
    device: Device
    home: Device
    layout: Layout
    params: dict
    vector: np.ndarray
    before: np.ndarray
    optimizer: Adam
    moments: dict
    decay: float | None
    average: np.ndarray | None
    rng: np.random.Generator
    epoch_rng: dict
    order: np.ndarray
    batch_size: int
    history: History
    position: int = 0
    step: int = 0
    best: np.ndarray | None = None
    best_loss: float = np.inf
    noise_seed: int = 0

    @classmethod
    def start(cls, model, params, device, rows, rng, optimizer, decay, batch_size):
        """A run on a device that has not made a step; `rows` is how many rows its data has."""
        home, params = device_of(params), to_device(params, device.name)
        layout = Layout(params)
        vector = to_device(layout.pack(params), device.name)  # a tree without arrays says no device
        return cls(
            model=model,
            device=device,
            home=home,
            layout=layout,
            params=layout.unpack(vector, copy_constants(params)),
            vector=vector,
            before=vector.copy(),
            optimizer=optimizer,
            moments=optimizer.init(vector),
            decay=decay,
            average=None if decay is None else vector.copy(),
            rng=rng,
            epoch_rng={},
            order=np.arange(rows),
            batch_size=batch_size,
            history=History(),
            noise_seed=int(rng.integers(2**63)) if model.noisy else 0,
        )

    def draw_order(self):
        """Begin an epoch: all rows in a new random order."""
        self.epoch_rng = self.rng.bit_generator.state
        self.order, self.position = self.rng.permutation(len(self.order)), 0

    @property
    def epoch_is_over(self):
        """Whether all rows of this epoch are used up."""
        return self.position >= len(self.order)

    def next_batch(self):
        """The next mini-batch; the last one of an epoch has the rows that are left."""
        if self.epoch_is_over:
            self.draw_order()
        start, self.position = self.position, min(self.position + self.batch_size, len(self.order))
        return Batch(self.order, slice(start, self.position), self.step + 1)

    def batches_to_come(self, steps):
        """A batch of each number of rows that there will be until step number `steps` is made."""
        made, left = self.position % len(self.order), len(self.order) % self.batch_size
        sizes = [self.batch_size] if self.step < steps else []
        if left and (len(self.order) - made) // self.batch_size < steps - self.step:
            sizes.append(left)
        return [Batch(self.order, slice(0, size)) for size in sizes]

    @property
    def nbytes(self):
        """How much memory the vectors take."""
        vectors = (self.vector, self.before, self.average, self.best, *self.moments.values())
        return sum(vector.nbytes for vector in vectors if vector is not None)

    def noise(self, rows, number):
        """The noise of a batch: the same whenever the same step's (number 0: the validation's) is asked for."""
        if not self.model.noisy:
            return ()
        rng = np.random.default_rng([self.noise_seed, number])
        return self.model.noise(self.device.generator(rng), rows, self.layout.dtype)

    def update(self, gradient, sound=None):
        """Make a step: optimizer, then the moving average; the gradient is used up.

        `sound` is a truth value on a device: where it is false, the vectors stay as they are.
        """
        self.step += 1
        held = None if sound is None else self.vector.copy()
        in_chunks(partial(np.copyto, where=True if sound is None else sound), self.before, self.vector)
        rate = self.optimizer.update(self.moments, self.vector, gradient, self.step)
        if sound is not None:
            np.copyto(self.vector, held, where=~sound)
        if self.average is not None:
            decay = min(self.decay, (1 + self.step) / (10 + self.step))

            def draw_near(average, vector, way):
                np.subtract(vector, average, out=way)
                way *= 1 - decay
                if sound is not None:
                    np.copyto(way, 0, where=~sound)
                average += way

            in_chunks(draw_near, self.average, self.vector, gradient)
        return rate

    def validate(self, data):
        """Look at held-out data, and keep the parameters if they are the best so far."""
        current = self.vector if self.average is None else self.average
        params = self.layout.unpack(current, self.params)
        losses = [fetch(self.model.losses(params, *piece)) for piece in data.pieces()]
        loss = float(np.mean(np.concatenate(losses)))
        if not np.isfinite(loss):
            raise self.failure(f"expected a finite validation loss, got {loss} after step {self.step}")
        self.history.validation_step.append(self.step)
        self.history.validation_loss.append(loss)
        if loss < self.best_loss:
            self.best, self.best_loss = current.copy(), loss

    def result(self):
        """The parameters to return: the best by validation, else the average, else the last."""
        vectors = (self.best, self.average, self.vector)
        return self.tree_of(next(vector for vector in vectors if vector is not None))

    def tree_of(self, vector):
        """A copy of a vector as a tree of parameters, at home."""
        return to_device(self.layout.unpack(vector.copy(), self.params), self.home.name)

    def failure(self, message):
        """An error that carries what had been learned before the step that went wrong."""
        learned = (self.best, self.average, self.before)
        vector = next((v for v in learned if v is not None and np.isfinite(v).all()), self.before)
        self.history.cut()
        return NonFiniteError(message, self.tree_of(vector), self.history)

    @property
    def longest_gradient(self):
        """The longest gradient that the optimizer can take: Adam's v grows to some 1 / (1 - beta2) times its square."""
        return float(np.sqrt(np.finfo(self.layout.dtype).max * (1 - self.optimizer.beta2)))

    def failure_of_step(self, batch, loss, gradient, norm):
        """Why a step cannot be made with a loss and its gradient."""
        if not np.isfinite(loss):
            return self.failure(self.explain(batch, loss))
        if not np.isfinite(norm):
            path = self.layout.locate(int(np.argmin(np.isfinite(gradient))))
            return self.failure(
                f"expected a finite gradient at step {self.step + 1}, got one that is not: the first is that of {path}"
            )
        return self.failure(
            f"expected a gradient whose square {gradient.dtype} can hold, got one of norm {norm:.1e} at step "
            f"{self.step + 1}: clip it with clip_norm"
        )

    def check_parameters(self, data):
        """Raise if the last step has ruined the parameters: their loss on some rows is not finite."""
        batch = data.take(Batch(self.order, slice(0, self.batch_size)))
        loss = self.model.loss(self.params, *batch)
        if not np.isfinite(loss) or not np.isfinite(self.vector).all():
            raise self.failure(self.explain(batch, loss))

    def explain(self, batch, loss):
        """Why a loss is not finite: which parameter, or else which layer's output, is the first."""
        expected = f"expected a finite loss, got {float(loss)} after step {self.step}"
        finite = np.isfinite(self.vector)
        if not finite.all():
            return f"{expected}: the parameter {self.layout.locate(int(np.argmin(finite)))} is not finite"
        return f"{expected}: {self.model.explain(self.params, *batch)}"

    def save(self, path, settings):
        """Write the whole state to a checkpoint."""
        arrays = {"vector": self.vector, "average": self.average, "best": self.best}
        arrays = {name: vector for name, vector in arrays.items() if vector is not None}
        arrays |= {f"moment:{name}": moment for name, moment in self.moments.items()}
        arrays |= {f"history:{name}": series for name, series in self.history.arrays().items()}
        state = {
            "settings": settings,
            "step": self.step,
            "position": self.position,
            "best_loss": self.best_loss if np.isfinite(self.best_loss) else None,
            "epoch_rng": to_plain(self.epoch_rng),
            "noise_seed": self.noise_seed,
        }
        write(path, self.model.learned, self.result(), state, to_host(arrays))

    def resume(self, path, settings, steps):
        """Go on where a checkpoint stopped, or raise, and change nothing, where it is another run's."""
        saved = load_run(path)
        state = saved.run
        for name, value in settings.items():
            saved_value = state["settings"].get(name)
            if isinstance(
                saved_value, dict
            ):  # a description, perhaps from before a hyper-parameter was there
                saved_value = describe(rebuild(saved_value))
            if saved_value != value:
                raise InputError(
                    f"expected a checkpoint of this run at {path}, got one whose {name} is another "
                    f"({_short(saved_value)} there, {_short(value)} here); "
                    "pass the same, or another path"
                )
        if state["step"] > steps:
            raise InputError(
                f"expected steps to be at least the {state['step']} that {path} has made, got {steps}"
            )
        epoch_rng = from_plain(state["epoch_rng"], self.rng)

        arrays, params = to_device((saved.arrays, saved.params), self.device.name)
        self.vector[...] = arrays["vector"]
        # The constants, too, are those that were trained with.
        self.params = self.layout.unpack(self.vector, params)
        for name, moment in self.moments.items():
            moment[...] = arrays[f"moment:{name}"]
        if saved.format == FORMATS[0]:
            self.moments["m"] /= 1 - self.optimizer.beta1
            self.moments["v"] /= 1 - self.optimizer.beta2
        self.average, self.best = arrays.get("average"), arrays.get("best")
        self.history = History.from_arrays(with_prefix(saved.arrays, "history:"))
        self.step, self.noise_seed = state["step"], state.get("noise_seed", 0)
        self.best_loss = np.inf if state["best_loss"] is None else state["best_loss"]
        # The order of the epoch is drawn again, from the state that it was drawn from.
        self.rng.bit_generator.state = epoch_rng
        self.draw_order()
        self.position = state["position"]


def copy_constants(params):
    """The tree with its constants copied, so that what is returned shares nothing with what came in."""
    return tree.build(lambda _, leaf: leaf if tree.is_trained(leaf) else as_array(leaf).copy("K"), params)


def fingerprint(x):
    """Shape, dtype and checksum of an array: enough to notice that a run goes on with other data."""
    return f"{x.shape} {x.dtype} {zlib.crc32(np.ascontiguousarray(fetch(x))):08x}"


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else "another description"
