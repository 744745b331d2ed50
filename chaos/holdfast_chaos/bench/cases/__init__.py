"""One module per benchmark; the registry takes its name from the module's and its work from `BENCHMARK`."""
