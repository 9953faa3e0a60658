"""Recognising files with a trained network, and networks for other runtimes."""

from omnisource.predict.annotate import Annotation, annotate, annotated_name
from omnisource.predict.export import export, load_onnx
from omnisource.predict.inputs import gathered
from omnisource.predict.recogniser import Guess, Prediction, Recogniser, Window, load

__all__ = [
    "Annotation",
    "Guess",
    "Prediction",
    "Recogniser",
    "Window",
    "annotate",
    "annotated_name",
    "export",
    "gathered",
    "load",
    "load_onnx",
]
