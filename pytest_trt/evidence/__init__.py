"""Evidence: what can be known of a case that ran, each part measured once, for the rules to read."""

__all__ = [
    "bisection",
    "calibration_shift",
    "coverage",
    "evidence",
    "finding",
    "hops",
    "judgement",
    "localise",
    "output_errors",
    "quant_ranges",
    "reproducibility",
    "rounding",
    "sensitivity",
    "weak_bounds",
    "weight_envelope",
    "weights",
]
