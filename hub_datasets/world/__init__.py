"""The rendered world: clips with exact ground truth, their texts, and the data sets made of them."""
