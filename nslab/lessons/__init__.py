"""What makes a lesson of it: predictions, compared with what the kernel then does."""

from nslab.lessons.prediction import Comparison, Prediction, predict

__all__ = ["Comparison", "Prediction", "predict"]
