"""The one style of all figures: colours, sizes of text, resolution.

Categories have the colours of Okabe and Ito, in an order that also differs in print without colour; values have the
map cividis, signed values PuOr, which is white at 0. Text is readable where a figure of ten inches, the widest, is
shown 850 pixels wide.

References
----------
Okabe, Ito: Color Universal Design, 2008. https://jfly.uni-koeln.de/color/
"""

BLUE, VERMILLION, BLACK, SKY, ORANGE = "#0072B2", "#D55E00", "#000000", "#56B4E9", "#E69F00"

# For `matplotlib.pyplot.style.use` or `matplotlib.rc_context`; npflow itself changes no setting of Matplotlib.
STYLE = {
    "axes.prop_cycle": f"cycler('color', {[BLUE, VERMILLION, BLACK, SKY, ORANGE]})",
    "image.cmap": "cividis",
    "figure.figsize": (6.0, 3.8),  # inches
    "figure.dpi": 120,
    "font.size": 9,
    "axes.titlesize": 9.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "axes.axisbelow": True,  # a grid behind what is drawn
    "grid.color": "0.9",
}
