"""All input and output of the operator: reading clusters, writing them, metrics."""
