"""V-SynFlow [3.2]: from raw, weakly labelled videos to training pairs, in shards that survive being killed."""
