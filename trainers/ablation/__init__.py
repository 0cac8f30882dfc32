"""The ablation on the rendered world: what data, curriculum and pre-training bring, over seeds, with paired intervals."""
