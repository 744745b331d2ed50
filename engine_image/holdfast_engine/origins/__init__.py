"""Places that keep models, one file each: implementations of `holdfast_engine.fetch.Origin`."""
