"""Records: what ``--trt-report`` wrote, read again, told in short, and two of them compared."""
