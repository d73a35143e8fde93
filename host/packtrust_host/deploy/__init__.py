"""From a checkout to running boards: what a board gets, how it gets there, and virtual boards to try it on."""
