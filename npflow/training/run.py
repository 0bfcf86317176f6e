"""The state of a training run between two steps, and how it is saved and resumed."""

import time
from dataclasses import dataclass

import numpy as np

from npflow.autodiff import Layout, tree
from npflow.autodiff.gpu.device import Device
from npflow.autodiff.gpu.devices import as_array, device_of, fetch, to_device, to_host
from npflow.autodiff.program.chunks import in_chunks, map_rows
from npflow.description import describe, difference, rebuild
from npflow.errors import InputError, NonFiniteError
from npflow.flow import named_errors
from npflow.layers.composite import first_non_finite
from npflow.training.checkpoint import load_run, with_prefix, write
from npflow.training.data import Batch, Batches
from npflow.training.history import History
from npflow.training.older_formats import convert_moments
from npflow.training.options import Options


@dataclass
class Run:
    """The state of a training run between two steps: everything that a checkpoint has to hold.

    The run is made on `device`; its results live at `home`, where the parameters came from. `vector` holds the
    parameters, and `params` are views of it. `before` is the vector one step earlier, so that a step that goes wrong
    loses nothing; `average` and `best` are vectors like it, or None. `order`, on the host, is the order of the rows in
    this epoch, `epoch_rng` the random state that it was drawn from, and `position` the number of rows used up.
    """

    model: object
    device: Device
    home: Device
    layout: Layout
    params: dict
    vector: np.ndarray
    before: np.ndarray
    options: Options
    moments: dict
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
    started: float = 0.0  # when the clock would have shown 0 seconds
    batches: Batches | None = None

    @classmethod
    def start(cls, model, params, arrays, options, rng, device, batch_size):
        """A run that has not made a step. Without arrays, each step is an epoch of one batch."""
        home, params = device_of(params), to_device(params, device.name)
        layout = Layout(params)
        vector = to_device(layout.pack(params), device.name)  # a tree without arrays has no device
        run = cls(
            model=model,
            device=device,
            home=home,
            layout=layout,
            params=layout.unpack(vector, copy_constants(params)),
            vector=vector,
            before=vector.copy(),
            options=options,
            moments=options.optimizer.init(vector),
            average=None if options.average is None else vector.copy(),
            rng=rng,
            epoch_rng={},
            order=np.arange(len(arrays[0]) if arrays else batch_size),
            batch_size=batch_size,
            history=History(),
            noise_seed=int(rng.integers(2**63)) if model.noisy else 0,
        )
        run.batches = run.batches_of(arrays)
        return run

    # ---------------------------------------------------------------- batches

    def batches_of(self, arrays):
        """The batches of arrays."""
        return Batches(to_host(arrays))

    def take(self, batch, part=None):
        """The arrays of a batch and the model's noise beside them; only a `part` of its rows where the rest is not read."""
        return self.batches.take(batch, self.noise, part)

    def draw_order(self):
        """Begin an epoch: all rows in a new random order."""
        self.epoch_rng = self.rng.bit_generator.state
        self.order, self.position = self.rng.permutation(len(self.order)), 0

    @property
    def epoch_is_over(self):
        """Whether all rows of this epoch are used up."""
        return self.position >= len(self.order)

    def positions_after(self, step):
        """The numbers of rows that may be used up after a step; between two epochs, all of one or none of the next."""
        made = step % -(-len(self.order) // self.batch_size)  # batches of the epoch
        return (made * self.batch_size,) if made or not step else (0, len(self.order))

    def next_batch(self):
        """The next mini-batch; the last one of an epoch has the rows that are left."""
        if self.epoch_is_over:
            self.draw_order()
        stop = min(self.position + self.batch_size, len(self.order))
        return Batch(self.order, slice(self.position, stop), self.step + 1)

    def sizes_to_come(self, steps):
        """A batch of each size that occurs until step number `steps`."""
        made, left = self.position % len(self.order), len(self.order) % self.batch_size
        sizes = [self.batch_size] if self.step < steps else []
        if left and (len(self.order) - made) // self.batch_size < steps - self.step:
            sizes.append(left)
        return [Batch(self.order, slice(0, size)) for size in sizes]

    def noise(self, rows, number):
        """The noise of step `number`, the same whenever it is drawn; number 0 is that of the validation."""
        if not self.model.noisy:
            return ()
        rng = np.random.default_rng([self.noise_seed, number])
        return self.model.noise(self.device.generator(rng), rows, self.layout.dtype)

    # ---------------------------------------------------------------- steps

    def note(self, batch, loss, norm, gradient):
        """Write down the loss and the gradient's norm of a step that is about to be made; raise where it cannot be."""
        self.check_step(batch, float(loss), norm, gradient)
        self.history.loss.append(float(loss))
        self.history.gradient_norm.append(norm)

    def read(self):
        """Write down what has not been written down yet: nothing on the host."""

    def update(self, batch, gradient):
        """Make the step of a batch: optimizer, then moving average. Use the gradient up; return the learning rate."""
        self.step, self.position = batch.number, batch.rows.stop
        in_chunks(np.copyto, self.before, self.vector)
        rate = self.options.optimizer.update(self.moments, self.vector, gradient, self.step)
        if self.average is not None:
            decay = min(self.options.average, (1 + self.step) / (10 + self.step))

            def move(average, vector, way):
                np.subtract(vector, average, out=way)
                way *= 1 - decay
                average += way

            in_chunks(move, self.average, self.vector, gradient)
        return rate

    def validate(self, batches):
        """Evaluate held-out data, and keep the parameters if they are the best so far."""
        current = self.vector if self.average is None else self.average
        params = self.layout.unpack(current, self.params)
        losses = []
        for chunk in batches.chunks(self.noise):
            with named_errors(self.model.visits, params, *chunk):
                losses.append(fetch(map_rows(self.model.losses, params, *chunk)))
        loss = float(np.mean(np.concatenate(losses)))
        if not np.isfinite(loss):
            raise self.failure(f"expected a finite validation loss, got {loss} after step {self.step}")
        self.history.validation_step.append(self.step)
        self.history.validation_loss.append(loss)
        if loss < self.best_loss:
            self.best, self.best_loss = current.copy(), loss

    @property
    def has_stalled(self):
        """Whether the validation loss has not improved for `patience` validations."""
        losses, patience = self.history.validation_loss, self.options.patience
        return bool(losses) and patience is not None and len(losses) - 1 - np.argmin(losses) >= patience

    def start_clock(self):
        """Go on counting seconds from those of the history."""
        self.started = time.perf_counter() - (self.history.seconds[-1] if self.history.seconds else 0.0)

    def elapsed(self):
        """Seconds of training, those before it was resumed included."""
        return time.perf_counter() - self.started

    # ---------------------------------------------------------------- results

    def result(self):
        """The parameters to return: the best by validation, else the average, else the last; not a copy."""
        vectors = (self.best, self.average, self.vector)
        return self.tree_of(next(vector for vector in vectors if vector is not None))

    def tree_of(self, vector):
        """A vector as a tree of parameters, at home."""
        return to_device(self.layout.unpack(vector, self.params), self.home.name)

    @property
    def nbytes(self):
        """The memory of all vectors, in bytes."""
        vectors = (self.vector, self.before, self.average, self.best, *self.moments.values())
        return sum(vector.nbytes for vector in vectors if vector is not None)

    # ---------------------------------------------------------------- what can go wrong

    @property
    def longest_gradient(self):
        """The largest norm that the optimizer can take: Adam's v grows to about its square / (1 - beta2)."""
        if self.options.clip_norm is not None:
            return np.inf
        return float(np.sqrt(np.finfo(self.layout.dtype).max * (1 - self.options.optimizer.beta2)))

    def check_step(self, batch, loss, norm, gradient):
        """Raise `NonFiniteError` unless a step can be made from a loss and its gradient."""
        if not np.isfinite(loss):
            raise self.failure(self.explain(batch, loss))
        if not np.isfinite(norm):
            path = self.layout.locate(int(np.argmin(np.isfinite(gradient))))
            raise self.failure(
                f"expected a finite gradient at step {batch.number}, got one that is not: the first such parameter is "
                f"{path}"
            )
        if norm > self.longest_gradient:
            raise self.failure(
                f"expected a gradient whose square {self.layout.dtype} can hold, got one of norm {norm:.1e} at step "
                f"{batch.number}: clip it with clip_norm"
            )

    def explain(self, batch, loss):
        """Why a loss is not finite: the first parameter or layer that is not."""
        expected = f"expected a finite loss, got {loss} after step {batch.number - 1}"
        finite = np.isfinite(self.vector)
        if not finite.all():
            return f"{expected}: the parameter {self.layout.locate(int(np.argmin(finite)))} is not finite"
        culprit = first_non_finite(self.model.visits(self.params, *self.take(batch)))
        if culprit is None:
            return f"{expected}, although parameters and outputs are finite"
        return f"{expected}: the first output not finite is that of {culprit}"

    def check_parameters(self):
        """Raise `NonFiniteError` if the last step has left parameters that are not finite."""
        finite = np.isfinite(self.vector)
        if not finite.all():
            path = self.layout.locate(int(np.argmin(finite)))
            raise self.failure(
                f"expected finite parameters after step {self.step}, got {path}, which is not finite"
            )

    def failure(self, message):
        """An error that carries what had been learned before the step that went wrong."""
        learned = (self.best, self.average, self.before)
        vector = next((v for v in learned if v is not None and np.isfinite(v).all()), self.before)
        self.history.cut()
        return NonFiniteError(message, self.tree_of(vector), self.history)

    # ---------------------------------------------------------------- checkpoints

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
            "epoch_rng": self.epoch_rng,
            "noise_seed": self.noise_seed,
        }
        write(path, self.model.learned, self.result(), state, to_host(arrays))

    def resume(self, path, settings, steps):
        """Go on from a checkpoint; raise, and change nothing, where it is that of another run."""
        saved = load_run(path)
        self.check_saved(saved, path, settings, steps)
        state, before = saved.run, self.rng.bit_generator.state
        try:
            self.rng.bit_generator.state = state["epoch_rng"]
        except Exception as error:  # of a generator that is not NumPy's
            self.rng.bit_generator.state = before
            raise InputError(f"{path} cannot be resumed: its generator: {error}") from error

        arrays, params = to_device((saved.arrays, saved.params), self.device.name)
        self.vector[...] = arrays["vector"]
        # The constants, too, are those of the saved run.
        self.params = self.layout.unpack(self.vector, params)
        for name, moment in self.moments.items():
            moment[...] = arrays[f"moment:{name}"]
        convert_moments(saved.format, self.moments, self.options.optimizer)
        self.average, self.best = arrays.get("average"), arrays.get("best")
        self.history = History.from_arrays(with_prefix(saved.arrays, "history:"))
        self.step, self.noise_seed = state["step"], state.get("noise_seed", 0)
        self.best_loss = np.inf if state["best_loss"] is None else state["best_loss"]
        self.draw_order()  # that of the epoch again, from the same random state
        self.position = state["position"]

    def check_saved(self, saved, path, settings, steps):
        """Raise `InputError` unless a checkpoint is one of this run, made before its last step."""
        state = saved.run
        for name, value in settings.items():
            saved_value = state["settings"].get(name)
            if isinstance(saved_value, dict):  # a description, perhaps older than one of its hyper-parameters
                try:
                    saved_value = describe(rebuild(saved_value))
                except (InputError, RecursionError) as error:
                    raise InputError(f"{path} cannot be resumed: its {name}: {error}") from error
            if saved_value != value:
                raise InputError(
                    f"expected a checkpoint of this run at {path}, got one with another {name} "
                    f"({difference(saved_value, value)}); pass the same, or another path"
                )
        if state["step"] > steps:
            raise InputError(
                f"expected steps to be at least the {state['step']} that {path} has made, got {steps}"
            )
        kind, saved_kind = (
            one.get("bit_generator") for one in (self.rng.bit_generator.state, state["epoch_rng"])
        )
        if kind != saved_kind:
            raise InputError(
                f"expected a generator of the kind that the run began with, {saved_kind}, got {kind}"
            )
        layout, moments = Layout(saved.params), with_prefix(saved.arrays, "moment:")
        for what, there, here in (
            ("model", describe(saved.flow), describe(self.model.learned)),
            ("dtype", str(layout.dtype), str(self.layout.dtype)),
            ("moments", sorted(moments), sorted(self.moments)),
        ):
            if there != here:
                raise InputError(
                    f"expected a checkpoint of this run at {path}, got one with another {what} ({difference(there, here)})"
                )
        positions = self.positions_after(state["step"])
        if state["position"] not in positions:
            raise InputError(
                f"{path} cannot be resumed: expected {' or '.join(map(str, positions))} rows of the epoch to be used up, "
                f"got {state['position']}"
            )


def copy_of(params):
    """The tree with all of its arrays copied."""
    return tree.build(lambda _, leaf: as_array(leaf).copy("K"), params)


def copy_constants(params):
    """The tree with its constants copied, so that a result shares nothing with what came in."""
    return tree.build(lambda _, leaf: leaf if tree.is_trained(leaf) else as_array(leaf).copy("K"), params)
