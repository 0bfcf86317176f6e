"""Recipes, one paper per file, each the paper's list of layers; and other models: VAE, PixelCNN, ReverseKL, FlowMatching."""

from npflow.models.continuous_flow import EstimatedTrace, ExactTrace, Solved, continuous_flow
from npflow.models.flow_matching import FlowMatching
from npflow.models.gaussianization import gaussianization
from npflow.models.glow import glow, image_glow
from npflow.models.iaf import iaf
from npflow.models.maf import maf
from npflow.models.mintnet import mintnet
from npflow.models.neural_spline import neural_spline
from npflow.models.nice import image_nice, nice
from npflow.models.pixelcnn import PixelCNN
from npflow.models.planar import planar, radial, sylvester
from npflow.models.real_nvp import image_real_nvp, real_nvp
from npflow.models.residual_flow import EstimatedLogDet, image_residual_flow, residual_flow
from npflow.models.reverse_kl import ReverseKL
from npflow.models.super_resolution import inpainting, super_resolution
from npflow.models.vae import VAE

__all__ = [
    "VAE",
    "EstimatedLogDet",
    "EstimatedTrace",
    "ExactTrace",
    "FlowMatching",
    "PixelCNN",
    "ReverseKL",
    "Solved",
    "continuous_flow",
    "gaussianization",
    "glow",
    "iaf",
    "image_glow",
    "image_nice",
    "image_real_nvp",
    "image_residual_flow",
    "inpainting",
    "maf",
    "mintnet",
    "neural_spline",
    "nice",
    "planar",
    "radial",
    "real_nvp",
    "residual_flow",
    "super_resolution",
    "sylvester",
]
