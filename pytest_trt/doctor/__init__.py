"""Doctor: what a machine has of all that pytest-trt may use, what of it does not fit, and how to mend it.

Each check is a pure function from a :class:`~pytest_trt.doctor.platform.Platform` to symptoms, so that machines which
nobody has at hand - Windows, a broken driver - are looked at in tests as well.
"""
