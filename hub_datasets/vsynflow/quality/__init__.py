"""Stage 1 of V-SynFlow [3.2]: multi-granular quality control; every score is stored, limits are applied on reading."""
