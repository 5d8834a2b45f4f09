"""Coverage-guided fuzzing of all that reads what others wrote. CONTRIBUTING.md, "Fuzzing".

    make fuzz                            each target for FUZZ_SECONDS, with atheris
    python -m tests.fuzz map --seconds 600

A target is plain Python and needs no atheris: tests/test_fuzz.py replays the inputs in fixtures/fuzz with it.
"""
