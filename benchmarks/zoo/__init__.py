"""The zoo: planted defects and healthy twins of six networks, to prove the detector on (docs/zoo.md)."""
