"""Which edges a recommendation rests on."""
