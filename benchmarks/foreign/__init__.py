"""Networks of other people: is the gate right on what it was not made with? (docs/foreign.md)"""
