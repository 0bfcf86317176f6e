"""What helps with the mistakes that all exercises share."""

PIXELS = "An image has H W pixels, and each is transformed: the scale of a channel stands H W times on the diagonal."

# A pattern of what is wrong, and the hint for it. The first that fits is given.
COMMON = (
    (
        r"still has \.\.\.",
        "Write your own lines in the place of each `...`. The formula and hints are at the top of the page.",
    ),
    (r"return a pair", "A direction ends with two arrays: `return z, log_det`, or `return x, log_det`."),
    (
        r"autograd\.numpy",
        "Write `import autograd.numpy as np`. Functions of NumPy itself have no derivatives, and training "
        "needs them.",
    ),
    (
        r"in place",
        "Write `x = x - y`, not `x -= y`: the array that comes in belongs to the caller, who still needs it.",
    ),
    (
        r"number read off",
        "Compute with whole arrays: no float() of an entry, and no `if` that looks at values.",
    ),
    (
        r"float32 throughout|in the dtype of x|for float32 input",
        "np.ones(n) and np.zeros(n) are float64, whatever x is. `np.ones_like(x[:, 0])` has the dtype of x.",
    ),
    (
        r"expected an array of shape",
        "Return one number for each row: sum over the components (axis=1), not over everything.",
    ),
    (
        r"rows influence each other",
        "Each row has a log-det of its own. Sum over the components of a row (axis=1), not over the rows.",
    ),
    (
        r"log_det of \w+ to have shape .* got \(\)",
        "Each row needs a number. Sum over axis=1 where the terms differ from row to row. Where they do "
        "not, multiply the sum by `np.ones_like(x[:, 0])`.",
    ),
    (
        r"log_det of \w+ to have shape",
        "Sum over the components of a row (axis=1), so that one number for each row is left.",
    ),
    (
        r"log_det of inverse has the opposite sign",
        "The inverse undoes the change of volume, so its log-det is minus that of forward.",
    ),
    (
        r"log_det of forward has the opposite sign",
        "The log-det of forward is positive where forward stretches space, and negative where it shrinks it.",
    ),
    (
        r"H W",
        PIXELS,
    ),
    (
        r"is -inf|is nan|= nan",
        "A volume has no sign: take np.abs before the logarithm. The logarithm of 0 is -inf, and that of a "
        "negative number nan.",
    ),
    (r"0 in every row", "The log-det is missing. What stands on the diagonal of the Jacobian?"),
    (
        r"mean over|divided by the number",
        "A determinant is a product, so its logarithm is a sum, not a mean.",
    ),
    (
        r"init returned, got",
        "The keys of params are those that `init` returns on the page.",
    ),
    (
        r"shapes fit|gave shape",
        "Look at the shapes in this line: rows are the first axis, components or channels the last.",
    ),
    (
        r"code that runs",
        "Python stops at this line. Is each name defined above it, and each bracket closed?",
    ),
    (
        r"transposed",
        "A row of a batch is a row vector: z = A x is `x @ A.T` there, and the inverse solves with the same "
        "matrix.",
    ),
    (
        r"the right z\. \w+\(\w+\(\w\)\) is ",
        "Solve the formula for x. Undo the last step first: subtract what was added, then divide by what "
        "was multiplied.",
    ),
    (
        r"depends on the parameters alone",
        "The log-det is wrong by the same number in each row. Which entries stand on the diagonal of the "
        "Jacobian, and what is the logarithm of their product?",
    ),
    (
        r"differently in each row|taken at",
        "A term of the log-det is missing, or taken at another point. That of forward belongs to its own x, "
        "that of inverse to the x that it returns.",
    ),
)
LAST = ("", "Compare your lines with the formula at the top of the page, term by term and sign by sign.")
